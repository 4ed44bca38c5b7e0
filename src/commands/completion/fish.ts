/** The script of `runlock completion fish`. */
export const fish = `# fish completion for runlock: asks runlock itself what can stand there.
function __runlock_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    command -q -- $program; or set program runlock
    for line in ($program __complete -- $words "$current" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$current"
            case ':program *'
                set -l skipped (string replace ':program ' '' -- $line)
                set -l rest $words[(math $skipped + 1)..-1]
                complete -C (string join ' ' -- (string escape -- $rest) $current)
            case '*'
                echo $line
        end
    end
end

complete -c runlock -f -a '(__runlock_complete)'
`;
