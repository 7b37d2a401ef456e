# Completion of pcocc for fish: the words up to the cursor go to pcocc, which answers with one candidate a line.

function __pcocc_complete
    set -l current (commandline --current-token --cut-at-cursor)
    set -l answers (COMPLETE=fish @PROGRAM@ -- $argv "$current" 2>/dev/null)
    switch "$answers[1]"
        case \tfiles
            # Behind "oci:" and the like begins a path of its own.
            set -l path (string replace -r '^[^/]*:' '' -- "$current")
            set -l scheme (string sub --length (math (string length -- "$current") - (string length -- "$path")) -- "$current")
            printf '%s\n' "$scheme"(__fish_complete_path "$path")
        case \tdirectories
            __fish_complete_directories "$current" ''
        case '*'
            printf '%s\n' $answers
    end
end

complete --erase --command pcocc
complete --erase --command pcocc-use
complete --command pcocc --no-files --keep-order --arguments '(__pcocc_complete (commandline --current-process --tokenize --cut-at-cursor))'
complete --command pcocc-use --no-files --keep-order --arguments '(__pcocc_complete pcocc docker env --job)'
