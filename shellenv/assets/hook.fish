# pcocc's hook for fish: the prompt's tag, pcocc-use and pcocc-leave.
#
# Before each prompt the tag is made out of the job's state file ("STATE DEADLINE"); no process is started.
# A function around fish_prompt shows it in front of what that prints.

set -g __pcocc_program @PROGRAM@

# Sets PCOCC_PROMPT to the tag of the job that PCOCC_JOBID names, and __pcocc_gone when that is no more.
function __pcocc_look
    set -g __pcocc_gone
    if not string match -qr '^[A-Za-z0-9_.-]+$' -- "$PCOCC_JOBID"
        set -ge PCOCC_PROMPT
        return
    end
    set -l folder $HOME/.pcocc
    test -n "$PCOCC_USER_CONF_DIR"; and set folder $PCOCC_USER_CONF_DIR
    set -l file $folder/job_$PCOCC_JOBID/state
    set -l state
    set -l deadline
    set -l mark
    if test -r $file
        read -l -d ' ' first second rest <$file 2>/dev/null
        set state $first
        set deadline $second
    end
    if string match -qr '^[0-9]+$' -- "$deadline"
        # What time it is, told by the age of the file: fish has no clock of its own.
        set -l now
        if builtin -q path; and path mtime -R $file >/dev/null 2>&1
            set now (math (path mtime $file) + (path mtime -R $file))
        else
            set now (command date +%s)
        end
        set -l left (math $deadline - $now)
        if test $left -le 0
            set state ended
        else if test $left -lt 60
            set mark " "$left"s"
        else if test $left -lt 600
            set mark " "(math -s0 $left / 60)"m"
        end
    end
    if contains -- "$state" '' stopping ended failed
        set mark ' ended'
        set __pcocc_gone $PCOCC_JOBID
    end
    set -gx PCOCC_PROMPT "(pcocc/$PCOCC_JOBID$mark) "
end

# Runs before each prompt; fish keeps $status and $pipestatus around it.
function __pcocc_before_prompt --on-event fish_prompt
    set -ge __pcocc_tagged
    __pcocc_look
    if test -n "$__pcocc_gone"; and test "$__pcocc_gone" != "$__pcocc_told"
        set -g __pcocc_told $__pcocc_gone
        set -l way pcocc-leave
        test -n "$__pcocc_spawned"; and set way $__pcocc_spawned
        echo "pcocc: job $PCOCC_JOBID has ended, and its docker daemon with it; leave with $way" >&2
    end
    # Only now is the user's own prompt sure to be there; and others may have replaced ours since.
    test -z "$PCOCC_PROMPT"; or functions fish_prompt | string match -q '*__pcocc_tagged*'; or __pcocc_wrap
end

# Puts a function around fish_prompt. Each has a name of its own: others wrap and unwrap as well.
function __pcocc_wrap
    set -q __pcocc_wraps; or set -g __pcocc_wraps 0
    set __pcocc_wraps (math $__pcocc_wraps + 1)
    set -l inner __pcocc_inner_prompt_$__pcocc_wraps
    functions --copy fish_prompt $inner
    function fish_prompt --inherit-variable inner
        # Up to the substitution nothing may run but `set`, which keeps $status and $pipestatus.
        set -l outer $__pcocc_tagged
        set -g __pcocc_tagged yes
        set -l shown ($inner | string collect --allow-empty)
        if test -n "$outer$PCOCC_DISABLE_PROMPT"
            printf %s "$shown"
        else
            set -ge __pcocc_tagged
            printf %s%s "$PCOCC_PROMPT" "$shown"
        end
    end
end

# Points docker in this shell at a job: pcocc-use [JOB]
function pcocc-use --description 'point docker in this shell at the daemon of a job'
    set -l code
    if set -q argv[1]
        set code (__pcocc_run docker env --shell fish -j $argv[1] | string collect); or return
    else
        set code (__pcocc_run docker env --shell fish | string collect); or return
    end
    printf '%s\n' $code | source
    set -g __pcocc_told
    # Prompts of others may read it before the hook runs next.
    __pcocc_look
end

# Points docker in this shell where it pointed before: pcocc-leave
function pcocc-leave --description 'point docker in this shell where it pointed before'
    set -l code (__pcocc_run docker env --shell fish --unset | string collect); or return
    printf '%s\n' $code | source
end

function __pcocc_run
    if test -x "$__pcocc_program"
        $__pcocc_program $argv
    else
        command pcocc $argv
    end
end
