#compdef pcocc pcocc-use
# Completion of pcocc for zsh: the words up to the cursor go to pcocc, which answers with one candidate a line:
# the candidate, a tab, and how to show it.

_pcocc() {
    local -a before lines open closed
    before=("${(@Q)words[1,CURRENT-1]}")
    # pcocc-use is completed as what it stands for.
    if [[ $service == pcocc-use ]]; then
        before=(pcocc docker env --job)
    fi
    lines=("${(@f)$(COMPLETE=zsh __pcocc_complete "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case ${lines[1]} in
    $'\tfiles')
        compset -P '[^/]#:'
        _files
        return
        ;;
    $'\tdirectories')
        _files -/
        return
        ;;
    '') return 1 ;;
    esac
    # What may go on is not followed by a space.
    open=(${(M)lines:#*[:=/@]$'\t'*})
    closed=(${lines:#*[:=/@]$'\t'*})
    local -a shown values list
    [[ ${lines[1]#*$'\t'} == *' -- '* ]] && list=(-l)
    if (($#closed)); then
        shown=("${(@)closed#*$'\t'}")
        values=("${(@)closed%%$'\t'*}")
        compadd $list -V pcocc -d shown -a values
    fi
    if (($#open)); then
        shown=("${(@)open#*$'\t'}")
        values=("${(@)open%%$'\t'*}")
        compadd $list -V pcocc-more -S '' -d shown -a values
    fi
}

__pcocc_complete() {
    @PROGRAM@ -- "$@"
}

# Read by compinit as a function, it is called at once; read by anything else, it makes itself known.
if [[ ${funcstack[1]-} == _pcocc ]]; then
    _pcocc "$@"
elif (($+functions[compdef])); then
    compdef _pcocc pcocc pcocc-use
fi
