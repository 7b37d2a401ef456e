# What sh reads when pcocc starts it: the file your own ENV names, then the prompt's tag.
if [ -n "${PCOCC_ENV-}" ]; then
    ENV=${PCOCC_ENV}
    unset PCOCC_ENV
    # A shell expands it before it looks for the file, as in ENV='$HOME/.shrc'.
    case ${ENV} in
    *[\"\\]*) __pcocc_file=${ENV} ;;
    *) eval "__pcocc_file=\"${ENV}\"" ;;
    esac
    if [ -r "${__pcocc_file}" ]; then
        # shellcheck source=/dev/null
        . "${__pcocc_file}"
    fi
    unset __pcocc_file
else
    unset ENV
fi
# shellcheck disable=SC2016,SC2154 # expanded when the prompt is shown
PS1='${PCOCC_JOBID:+(pcocc/${PCOCC_JOBID-}) }'"${PS1-\$ }"
