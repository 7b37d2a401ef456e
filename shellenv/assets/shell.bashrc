# What bash reads when pcocc starts it: your own ~/.bashrc, then pcocc's hook.
# (The system's file has been read: bash does that with --rcfile, too.)
if [[ -r ~/.bashrc ]]; then
    # shellcheck source=/dev/null
    . ~/.bashrc
fi
