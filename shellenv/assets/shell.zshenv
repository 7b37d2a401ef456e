# What zsh reads first when pcocc starts it: your own .zshenv, with ZDOTDIR as you have it.
__pcocc_folder=$ZDOTDIR
if ((${+PCOCC_ZDOTDIR})); then
    export ZDOTDIR=$PCOCC_ZDOTDIR
    unset PCOCC_ZDOTDIR
else
    unset ZDOTDIR
fi
if [[ -r ${ZDOTDIR:-$HOME}/.zshenv ]]; then
    . "${ZDOTDIR:-$HOME}/.zshenv"
fi
# Zsh looks for .zshrc next, and finds the one beside this file; what you set, it sets again.
if [[ -o interactive && -o rcs ]]; then
    if ((${+ZDOTDIR})); then
        __pcocc_zdotdir=$ZDOTDIR
    fi
    ZDOTDIR=$__pcocc_folder
fi
