/** The script of `runlock completion zsh`, to be sourced or saved as `_runlock` in a folder of fpath. */
export const zsh = `#compdef runlock
# zsh completion for runlock: asks runlock itself what can stand there.
_runlock() {
  local line program=\${(Q)words[1]}
  local -a described
  whence -p -- $program >/dev/null || program=runlock
  for line in "\${(@f)$($program __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}"; do
    case $line in
      :files) _files; return ;;
      ":program "*)
        shift $(( \${line#:program } + 1 )) words
        (( CURRENT -= \${line#:program } + 1 ))
        _normal
        return
        ;;
      ?*) described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
    esac
  done
  _describe -V runlock described
}

if [[ \${funcstack[1]} == _runlock ]]; then _runlock "$@"; else compdef _runlock runlock; fi
`;
