/** Exit statuses of the guard: it did its work; a program that it needs is missing. */
export const FIRED = 3;
export const UNABLE = 127;

/**
 * The guard, for any POSIX sh with coreutils or busybox. Arguments: run id, first life in tenths of a second.
 * It reads messages of 48 bytes from stdin: `beat <end of life, in tenths since boot> <pid> <start time>` and `quit`.
 * What belongs to the command is decided as in tree.ts. The awk program may hold no single quote.
 */
export const guardScript = `
run=$1 life=$2 pid=0 start=0 known= runlock=$PPID
unset script
# Caught rather than ignored: its helpers must die of them as usual.
trap : HUP INT QUIT TERM USR1 USR2

# Tenths of a second since boot, without a process of its own.
look_at_clock() {
  read -r up rest </proc/uptime
  now=\${up%.*}\${up#*.}
  now=\${now%?}
  while [ "\${now#0}" != "$now" ]; do now=\${now#0}; done
  now=\${now:-0}
}

# Reads messages until it is time to fire.
listen() {
  look_at_clock
  end=$((now + life)) late=0
  while :; do
    look_at_clock
    left=$((end - now))
    if [ "$left" -le 0 ]; then
      # More than a second late: it was stopped itself, maybe with runlock, whose word is still to be read, or to come:
      # on a busy host that takes a while.
      [ "$left" -ge -10 ] || [ "$late" != 0 ] || late=$((now + 30))
      left=$((late - now))
      [ "$left" -gt 0 ] || return
    fi
    message=$(exec timeout "$((left / 10)).$((left % 10))" dd bs=48 count=1 2>/dev/null)
    status=$?
    if [ -n "$message" ]; then
      set -- $message
      [ "$1" != quit ] || exit 0
      look_at_clock
      end=$2 pid=$3 start=$4 late=0
      # An old word; a newer one may wait behind it.
      [ "$end" -gt "$now" ] || late=$((now + 10))
      continue
    fi
    case $status in
      # End of file: runlock is gone.
      0) return ;;
      125 | 126 | 127) exit 127 ;;
    esac
    # Anything else: time is up (the clock decides), or somebody ended a helper.
  done
}

# Sets found to pid:start of everything alive that belongs to the run.
scan() {
  marked=$(grep $exactly "RUNLOCK_RUN_ID=$run" /proc/[0-9]*/environ 2>/dev/null)
  found=$(awk -v marked="$(echo $marked)" -v known="$known $pid:$start" -v except="$$ $runlock" '
    function led(id) { return id in mine || (id in before && (!(id in begun) || begun[id] == before[id])) }
    BEGIN {
      count = split(except, list, " ")
      for (i = 1; i <= count; i++) never[list[i]] = 1
      never[0] = 1
      for (i = 1; i < ARGC; i++) {
        id = substr(ARGV[i], 7)
        file = ARGV[i] "/stat"
        text = ""
        while ((getline line < file) > 0) text = text " " line
        close(file)
        sub(/.*\\)/, "", text)
        if (id in never || split(text, field, " ") < 20) continue
        alive[id] = field[1] !~ /[ZX]/ || field[18] > 1
        parent[id] = field[2]; group[id] = field[3]; session[id] = field[4]; begun[id] = field[20]
      }
      count = split(marked, list, " ")
      for (i = 1; i <= count; i++) { split(list[i], part, "/"); if (part[3] in begun) mine[part[3]] = 1 }
      count = split(known, list, " ")
      for (i = 1; i <= count; i++) {
        split(list[i], part, ":")
        if (part[1] in never) continue
        before[part[1]] = part[2]
        if (part[1] in begun && begun[part[1]] == part[2]) mine[part[1]] = 1
      }
      do {
        more = 0
        for (id in begun)
          if (!(id in mine) && (parent[id] in mine || led(group[id]) || led(session[id]))) { mine[id] = 1; more = 1 }
      } while (more)
      for (id in mine) if (alive[id]) print id ":" begun[id]
    }' /proc/[0-9]*)
  pids=
  for one in $found; do
    pids="$pids \${one%%:*}"
    case " $known " in *" $one "*) ;; *) known="$known $one" ;; esac
  done
}

# TERM, half a second later KILL, until two looks in a row find nothing.
fire() {
  # Should even a fork fail now, the shell ends here; a builtin still reaches the command itself.
  trap 'kill -9 "-$pid" "$pid"' EXIT
  [ "$pid" != 0 ] || trap - EXIT
  exactly=-lxFs
  ! printf 'a\\0b\\0' | grep -qzxF b || exactly=-lzxFs
  look_at_clock
  limit=$((now + 5)) empty=0 rounds=0 first=1
  while [ "$empty" -lt 2 ]; do
    scan
    look_at_clock
    if [ -z "$pids" ]; then
      empty=$((empty + 1))
    else
      empty=0
      if [ "$now" -ge "$limit" ]; then kill -9 $pids
      elif [ "$first" = 1 ]; then kill -15 $pids; kill -18 $pids; first=0
      fi
    fi
    rounds=$((rounds + 1))
    if [ "$empty" -lt 2 ]; then
      if [ "$rounds" -lt 50 ]; then sleep 0.05; else sleep 5; fi
    fi
  done
  trap - EXIT
}

listen
fire
exit 3
`;
