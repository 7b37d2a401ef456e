# What sh reads when pcocc starts it: the file your own ENV names, then the prompt's tag.
if [ -n "${PCOCC_ENV-}" ]; then
    ENV=${PCOCC_ENV}
    unset PCOCC_ENV
    if [ -r "${ENV}" ]; then
        # shellcheck source=/dev/null
        . "${ENV}"
    fi
else
    unset ENV
fi
# shellcheck disable=SC2016,SC2154 # expanded when the prompt is shown
PS1='${PCOCC_JOBID:+(pcocc/${PCOCC_JOBID-}) }'"${PS1-\$ }"
