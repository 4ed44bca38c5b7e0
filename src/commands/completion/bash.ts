/** The script of `runlock completion bash`. Works with and without the package bash-completion, from bash 4.3 on. */
export const bash = `# bash completion for runlock: asks runlock itself what can stand there.
_runlock() {
  local program=$1 words=() at=(0) rest=$COMP_LINE lead='' i word gap literal value line
  command -v -- "$program" >/dev/null || program=runlock
  # Readline takes words like --hold=none and state:db/schema apart: nothing stands between their parts.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    gap=\${rest%%"$word"*} rest=\${rest#*"$word"}
    ((i == 0)) && continue
    if [[ -z $literal && $i -gt 1 && -n $word && -z $gap ]]; then
      lead=\${words[-1]}
      words[-1]+=$word
      # A sign alone is not replaced by what is chosen.
      [[ $word == [:=]* ]] && lead+=$word
    else
      lead=''
      words+=("$word") at+=("$i")
    fi
    [[ $word == -- ]] && literal=1
  done
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :files) compopt -o default ;;
      ":program "*) _runlock_program "\${at[\${line#:program } + 1]}" ;;
      *)
        value=\${line%%$'\\t'*}
        COMPREPLY+=("\${value#"$lead"}")
        ;;
    esac
  done < <("$program" __complete -- "\${words[@]}" 2>/dev/null)
}

# Completes the command line that begins at word $1 as if it stood alone.
_runlock_program() {
  if declare -F _comp_command_offset >/dev/null; then
    _comp_command_offset "$1"
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  elif ((COMP_CWORD == $1)); then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -c -- "\${COMP_WORDS[COMP_CWORD]}")
  else
    compopt -o default
  fi
}

complete -F _runlock runlock
`;
