# pcocc's hook for bash 4.4 and later: the prompt's tag, pcocc-use and pcocc-leave.
#
# The prompt gets one marker, ${__pcocc_tag-}, in front of whatever it is. Before each prompt that variable
# gets a new value out of the job's state file ("STATE DEADLINE"); no process is started.

__pcocc_program=@PROGRAM@

# Sets PCOCC_PROMPT to the tag of the job that PCOCC_JOBID names, and __pcocc_gone when that is no more.
__pcocc_look() {
    local folder=${PCOCC_USER_CONF_DIR:-${HOME-}/.pcocc} state='' deadline='' rest='' now='' mark=''
    __pcocc_gone=''
    case ${PCOCC_JOBID-} in
    '' | *[!A-Za-z0-9_.-]*)
        unset PCOCC_PROMPT
        return 0
        ;;
    *) ;;
    esac
    { IFS=' ' read -r state deadline rest || :; } 2>/dev/null <"${folder}/job_${PCOCC_JOBID}/state"
    case ${deadline} in
    '' | *[!0-9]*) ;;
    *)
        printf -v now '%(%s)T' -1
        rest=$((deadline - now))
        if ((rest <= 0)); then
            state=ended
        elif ((rest < 60)); then
            mark=" ${rest}s"
        elif ((rest < 600)); then
            mark=" $((rest / 60))m"
        fi
        ;;
    esac
    case ${state} in
    '' | stopping | ended | failed)
        mark=' ended'
        __pcocc_gone=${PCOCC_JOBID}
        ;;
    *) ;;
    esac
    export PCOCC_PROMPT="(pcocc/${PCOCC_JOBID}${mark}) "
}

# Runs before each prompt, as the last of PROMPT_COMMAND: those before it saw $? and PIPESTATUS as they
# were, and bash itself restores both afterwards.
__pcocc_prompt() {
    { local status=$? flags=$- -; } 2>/dev/null
    { set +eux; } 2>/dev/null
    __pcocc_look
    if [[ -n ${__pcocc_gone} && ${__pcocc_gone} != "${__pcocc_told-}" ]]; then
        __pcocc_told=${__pcocc_gone}
        printf 'pcocc: job %s has ended, and its docker daemon with it; leave with %s\n' \
            "${PCOCC_JOBID}" "${__pcocc_spawned:-pcocc-leave}" >&2
    fi
    __pcocc_show
    __pcocc_install
    # With set -e, what failed would end the shell.
    [[ ${flags} == *e* ]] || return "${status}"
}

# Puts the tag in front of the prompt.
__pcocc_show() {
    local old=${__pcocc_tag-}
    __pcocc_tag=${PCOCC_PROMPT-}
    [[ -z ${PCOCC_DISABLE_PROMPT-} ]] || __pcocc_tag=''
    # Nothing to show, or nowhere: the prompt stays as it is.
    [[ -n ${old}${__pcocc_tag} && ${PS1@a} != *r* ]] || return 0
    if shopt -q promptvars; then
        # shellcheck disable=SC2016 # bash expands it when it shows the prompt
        [[ -z ${__pcocc_tag} || ${PS1-} == *'${__pcocc_tag-}'* ]] || PS1='${__pcocc_tag-}'${PS1-}
    else
        [[ -z ${old} ]] || PS1=${PS1/"${old}"/}
        PS1=${__pcocc_tag}${PS1-}
    fi
}

# Makes bash call __pcocc_prompt before each prompt, last of all: others may set the prompt anew each time.
__pcocc_install() {
    local count command before=0 -
    set +u
    # Sites that log commands may have made it read only.
    [[ ${PROMPT_COMMAND@a} != *r* ]] || return 0
    if [[ ${PROMPT_COMMAND@a} == *a* ]] && ((BASH_VERSINFO[0] > 5 || BASH_VERSINFO[0] == 5 && BASH_VERSINFO[1] > 0)); then
        count=${#PROMPT_COMMAND[@]}
        for command in "${PROMPT_COMMAND[@]}"; do
            [[ ${command} != __pcocc_prompt ]] || before=$((before + 1))
        done
        # Bash walks along the list while this runs, so nothing may be taken out; and when others want to
        # be last as well, somebody has to stop.
        if ((count == 0)) || [[ ${PROMPT_COMMAND[*]: -1} != __pcocc_prompt ]] && ((before < 3)); then
            PROMPT_COMMAND+=(__pcocc_prompt)
        fi
    elif [[ -z ${PROMPT_COMMAND-} ]]; then
        PROMPT_COMMAND=__pcocc_prompt
    elif [[ ${PROMPT_COMMAND} != *__pcocc_prompt ]]; then
        # A line of its own, whatever the one before ends in.
        PROMPT_COMMAND=${PROMPT_COMMAND//$'\n'__pcocc_prompt/}$'\n'__pcocc_prompt
    fi
}

# Points docker in this shell at a job: pcocc-use [JOB]
__pcocc_use() {
    local code
    code=$(__pcocc_run docker env --shell bash ${1:+-j "$1"}) || return
    eval "${code}"
    __pcocc_told=''
    # Prompts of others may read it before the hook runs next.
    __pcocc_look
}

# Points docker in this shell where it pointed before: pcocc-leave
__pcocc_leave() {
    local code
    code=$(__pcocc_run docker env --shell bash --unset) || return
    eval "${code}"
}

__pcocc_run() {
    if [[ -x ${__pcocc_program} ]]; then
        "${__pcocc_program}" "$@"
    else
        command pcocc "$@"
    fi
}

# POSIX mode takes no such names for functions.
if shopt -qo posix; then
    alias pcocc-use=__pcocc_use pcocc-leave=__pcocc_leave
else
    pcocc-use() { __pcocc_use "$@"; }
    pcocc-leave() { __pcocc_leave; }
fi

case $- in
*i*) __pcocc_install ;;
*) ;;
esac
