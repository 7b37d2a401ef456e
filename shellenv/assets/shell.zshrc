# What zsh reads next when pcocc starts it: your own .zshrc, then pcocc's hook.
if ((${+__pcocc_zdotdir})); then
    export ZDOTDIR=$__pcocc_zdotdir
else
    unset ZDOTDIR
fi
# The system's file may have put the history beside this one.
if [[ ${HISTFILE-} == $__pcocc_folder/* ]]; then
    HISTFILE=${ZDOTDIR:-$HOME}/${HISTFILE#$__pcocc_folder/}
fi
unset __pcocc_zdotdir __pcocc_folder
if [[ -r ${ZDOTDIR:-$HOME}/.zshrc ]]; then
    . "${ZDOTDIR:-$HOME}/.zshrc"
fi
