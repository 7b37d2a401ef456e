# Completion of pcocc for bash: the words up to the cursor go to pcocc, which answers with one candidate a line.

_pcocc() {
    local rest=${COMP_LINE:0:COMP_POINT} piece word text i
    local -a words=() answers=()
    # Bash splits words at : @ and = too, which image names and options have: what has no blank between it
    # is put together again, and cut off at the cursor.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        word=${rest#"${rest%%[![:space:]]*}"}
        [[ ${word} == "${piece}"* ]] || piece=${word}
        if ((i > 0)) && [[ ${word} == "${rest}" ]]; then
            words[${#words[@]} - 1]+=${piece}
        else
            words+=("${piece}")
        fi
        rest=${word#"${piece}"}
    done
    word=${words[${#words[@]} - 1]}
    # In POSIX mode bash knows no process substitution before 5.1; and a here string is one line at least.
    text=$(COMPLETE=bash __pcocc_complete "${words[@]//[\"\'\\]/}" 2>/dev/null) || true
    [[ -z ${text} ]] || mapfile -t answers <<<"${text}"
    case ${answers[0]-} in
    $'\tfiles')
        compopt -o filenames
        text=$(compgen -f -- "$2") || return 0
        mapfile -t COMPREPLY <<<"${text}"
        return 0
        ;;
    $'\tdirectories')
        compopt -o filenames
        text=$(compgen -d -- "$2") || return 0
        mapfile -t COMPREPLY <<<"${text}"
        return 0
        ;;
    *) ;;
    esac
    # Readline puts the answer in the place of what it takes for the word, which begins at the last break.
    COMPREPLY=("${answers[@]#"${word%"$2"}"}")
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[:=/@] ]]; then
        compopt -o nospace
    fi
}

# Completes pcocc-use as what it stands for.
_pcocc_use() {
    COMP_LINE="pcocc docker env --job ${COMP_WORDS[COMP_CWORD]}"
    COMP_POINT=${#COMP_LINE}
    COMP_WORDS=(pcocc docker env --job "${COMP_WORDS[COMP_CWORD]}")
    COMP_CWORD=4
    _pcocc pcocc "${COMP_WORDS[4]}" --job
}

__pcocc_complete() {
    @PROGRAM@ -- "$@"
}

complete -o nosort -F _pcocc pcocc
complete -o nosort -F _pcocc_use pcocc-use
