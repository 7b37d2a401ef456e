# pcocc's hook for zsh: the prompt's tag, pcocc-use and pcocc-leave.
#
# The prompt gets one marker, %27v, in front of whatever it is: zsh shows element 27 of psvar there. Before
# each prompt that element gets a new value out of the job's state file ("STATE DEADLINE"); no process is
# started. Zsh keeps $? and pipestatus around precmd functions by itself.

__pcocc_program=@PROGRAM@

# Sets PCOCC_PROMPT to the tag of the job that PCOCC_JOBID names, and __pcocc_gone when that is no more.
__pcocc_look() {
    emulate -L zsh
    local folder=${PCOCC_USER_CONF_DIR:-$HOME/.pcocc} state='' deadline='' rest='' mark='' now='%D{%s}'
    typeset -g __pcocc_gone=''
    if [[ -z $PCOCC_JOBID || $PCOCC_JOBID == *[^A-Za-z0-9_.-]* ]]; then
        unset PCOCC_PROMPT
        return 0
    fi
    if [[ -r $folder/job_$PCOCC_JOBID/state ]]; then
        IFS=' ' read -r state deadline rest <"$folder/job_$PCOCC_JOBID/state" 2>/dev/null
    fi
    if [[ -n $deadline && $deadline != *[^0-9]* ]]; then
        rest=$((deadline - ${(%)now}))
        if ((rest <= 0)); then
            state=ended
        elif ((rest < 60)); then
            mark=" ${rest}s"
        elif ((rest < 600)); then
            mark=" $((rest / 60))m"
        fi
    fi
    case $state in
    '' | stopping | ended | failed)
        mark=' ended'
        __pcocc_gone=$PCOCC_JOBID
        ;;
    esac
    typeset -gx PCOCC_PROMPT="(pcocc/$PCOCC_JOBID$mark) "
}

# Runs before each prompt.
__pcocc_precmd() {
    emulate -L zsh
    setopt no_xtrace
    __pcocc_look
    if [[ -n $__pcocc_gone && $__pcocc_gone != "$__pcocc_told" ]]; then
        typeset -g __pcocc_told=$__pcocc_gone
        print -ru2 -- "pcocc: job $PCOCC_JOBID has ended, and its docker daemon with it; leave with ${__pcocc_spawned:-pcocc-leave}"
    fi
    local tag=${PCOCC_PROMPT-}
    [[ -z $PCOCC_DISABLE_PROMPT ]] || tag=''
    if [[ -n $tag || -n ${psvar[27]-} ]]; then
        psvar[27]=$tag
        [[ $PROMPT == *%27v* ]] || PROMPT="%27v$PROMPT"
    fi
    # Others may set the prompt anew each time; when they want to be last as well, somebody has to stop.
    if [[ ${precmd_functions[-1]} != __pcocc_precmd ]] && ((__pcocc_moves++ < 3)); then
        __pcocc_install
    fi
    return 0
}

# Makes zsh call __pcocc_precmd before each prompt, last of all.
__pcocc_install() {
    emulate -L zsh
    typeset -ga precmd_functions
    precmd_functions=(${precmd_functions:#__pcocc_precmd} __pcocc_precmd)
}

# Points docker in this shell at a job: pcocc-use [JOB]
pcocc-use() {
    local code
    code=$(__pcocc_run docker env --shell zsh ${1:+-j} ${1:+"$1"}) || return
    eval "$code"
    __pcocc_told=''
    # Prompts of others may read it before the hook runs next.
    __pcocc_look
}

# Points docker in this shell where it pointed before: pcocc-leave
pcocc-leave() {
    local code
    code=$(__pcocc_run docker env --shell zsh --unset) || return
    eval "$code"
}

__pcocc_run() {
    if [[ -x $__pcocc_program ]]; then
        "$__pcocc_program" "$@"
    else
        command pcocc "$@"
    fi
}

if [[ -o interactive ]]; then
    typeset -gi __pcocc_moves=0
    typeset -g __pcocc_told=''
    __pcocc_install
fi
