/** Exit statuses of the guard: it did its work; a program that it needs is missing or does not work. */
export const FIRED = 3;
export const UNABLE = 127;

/**
 * The guard, for any POSIX sh with coreutils or busybox. Its argument: the first life in tenths of a second. Its
 * environment: `secret`, the run's nonce; `folder`, the run's cgroup, and `home`, the file that leads out of it, both
 * empty where there is none; `notes`, the folder of the run files of this host (process/run-file.ts).
 * It reads messages of 48 bytes from stdin: `beat <end of life, in tenths since boot> <pid> <start time>` and `quit`.
 * What belongs to the command is decided as in process-tree.ts. A look that failed proves nothing: each says whether it is whole.
 * The awk program may hold no single quote.
 */
export const guardScript = `
nonce=$secret folder=$folder home=$home notes=$notes life=$1 pid=0 start=0 known= pids= runlock=$PPID
unset script secret
line_end='
'
# Nothing at all would be in every environment.
[ -n "$nonce" ] || exit 127
# Caught rather than ignored: its helpers must die of them as usual.
trap 'woken=1' HUP INT QUIT TERM USR1 USR2
# Started while runlock was in the command's cgroup: that is not the guard's place.
[ -z "$home" ] || { echo 0 >"$home"; } 2>/dev/null

# Tenths of a second since boot, without a process of its own.
look_at_clock() {
  read -r up rest </proc/uptime
  now=\${up%.*}\${up#*.}
  now=\${now%?}
  while [ "\${now#0}" != "$now" ]; do now=\${now#0}; done
  now=\${now:-0}
}

# Ends the shell as it means to.
leave() {
  trap - EXIT
  exit "$1"
}

# The next message, by builtins alone, so the clock has to wait; fails at the end of file.
await_message() {
  while :; do
    woken=
    ! read -r message || return 0
    [ -n "$woken" ] || return 1
  done
}

# What builtins alone can do at the end: KILL for the cgroup, the command and its group.
strike_alone() {
  if [ -d "$folder" ] && ! echo 1 >"$folder/cgroup.kill"; then
    echo 1 >"$folder/cgroup.freeze"
    while read -r one; do kill -9 "$one"; done <"$folder/cgroup.procs"
  fi
  kill_command
  leave 3
} 2>/dev/null

# Some shells end when they can't fork: the command itself may have seen to that. This is the rest of such a guard's duty.
hold_out() {
  [ -n "$folder" ] || [ "$pid" != 0 ] || leave 127
  while await_message; do
    set -- $message
    [ "$1" != quit ] || leave 0
    pid=$3 start=$4
  done
  strike_alone
}

# Whether as many processes can be started as a look takes. Eval by command(1): a failed fork then does not end dash.
can_fork() {
  command eval '[ "$(echo all | cat | cat)" = all ]'
}

# Whether the guard is of use though it could not start a helper: a new one could not either, and might not even begin.
is_of_use() {
  [ -n "$folder" ] || { [ -z "$status" ] && [ "$pid" != 0 ]; } || return 1
  command -v timeout && command -v dd
} >/dev/null

# Reads messages until it is time to fire.
listen() {
  look_at_clock
  # A run that takes longer than this has time for a look at whether all programs are there and work.
  end=$((now + life)) late=0 test_at=$((now + 20)) failures=0
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
    if [ "$test_at" != 0 ]; then
      if [ "$now" -ge "$test_at" ]; then
        if command eval scan; then
          test_at=0 known= pids=
        else
          # In a cgroup there is something to do without a look, so only programs that do not work are a reason to go.
          ! can_fork || failures=$((failures + 1))
          [ -n "$folder" ] && [ "$failures" -lt 3 ] || leave 127
          test_at=$((now + 20))
        fi
        continue
      fi
      [ "$left" -lt $((test_at - now)) ] || left=$((test_at - now))
    fi
    message= status=
    command eval 'message=$(exec timeout "$((left / 10)).$((left % 10))" dd bs=48 count=1 2>/dev/null); status=$?'
    if [ -z "$message" ]; then
      case $status in
        # End of file: runlock is gone.
        0) return ;;
        # No helper was started.
        "" | 125 | 126 | 127)
          is_of_use || leave 127
          await_message || return 0
          ;;
        # Anything else: time is up (the clock decides), or somebody ended a helper.
        *) continue ;;
      esac
    fi
    set -- $message
    [ "$1" != quit ] || leave 0
    look_at_clock
    end=$2 pid=$3 start=$4 late=0
    # An old word; a newer one may wait behind it.
    [ "$end" -gt "$now" ] || late=$((now + 10))
  done
}

# Adds to marked which of $list carry the secret. It goes by pipe and environment: everybody can read arguments. The
# last file is grep's own environment, so a look that does not name it was not whole.
find_marked() {
  hits=$(secret=$nonce exec grep -lsF -f /proc/self/fd/0 $list /proc/self/environ <<END
$nonce
END
  )
  case $hits in
    *"/proc/self/environ") ;;
    *) return 1 ;;
  esac
  marked="$marked $hits" list= count=0
}

# Who is in the run's cgroup, and in those that the command made below it.
read_folder() {
  inside=
  [ -z "$folder" ] || inside=$(cat "$folder"/cgroup.procs "$folder"/*/cgroup.procs "$folder"/*/*/cgroup.procs 2>/dev/null)
}

# Sets outsiders to all processes but those in the run's cgroup, which are known without a look at them.
find_outsiders() {
  outsiders=$(echo /proc/[0-9]*)
  [ -n "$inside" ] || return 0
  outsiders=$({
    printf 'inside %s\\n' $inside
    printf 'process %s\\n' $outsiders
    echo end
  } | awk '
    $1 == "inside" { inside["/proc/" $2] = 1 }
    $1 == "process" && !($2 in inside) { print $2 }
    $1 == "end" { print "whole" }')
  case $outsiders in
    *whole) outsiders=\${outsiders%whole} ;;
    *) return 1 ;;
  esac
}

# Sets pids to everybody alive outside the cgroup that belongs to the run, and known to pid:start of all such ever. No
# list is an argument: there may be too many of them.
scan() {
  marked= list= count=0
  read_folder
  find_outsiders || return 1
  for one in $outsiders; do
    list="$list $one/environ" count=$((count + 1))
    [ "$count" -lt 1000 ] || find_marked || return 1
  done
  find_marked || return 1
  join || return 1
  [ -n "$hollow" ] || return 0
  # Where the main thread has ended, the others still have the environment.
  for one in $hollow; do list="$list /proc/$one/task/*/environ"; done
  find_marked && join
}

# Sets pids and known by what is marked, and hollow to others whose main thread has ended, while more of them run.
join() {
  found=$({
    printf 'known %s\\n' $known "$pid:$start"
    printf 'marked %s\\n' $marked
    printf 'inside %s\\n' $inside
    printf 'process %s\\n' $outsiders
    echo end
  } | awk -v guard="$$" -v runlock="$runlock" '
    function led(id) { return id in mine || (id in before && (!(id in begun) || begun[id] == before[id])) }
    function read_stat(id,   line, text, field) {
      text = ""
      while ((getline line < ("/proc/" id "/stat")) > 0) text = text " " line
      close("/proc/" id "/stat")
      sub(/.*\\)/, "", text)
      if (split(text, field, " ") < 20) return 0
      alive[id] = field[1] !~ /[ZX]/ || field[18] > 1
      ended[id] = field[1] ~ /[ZX]/
      parent[id] = field[2]; group[id] = field[3]; session[id] = field[4]; begun[id] = field[20]
      used[id] = used[field[3]] = used[field[4]] = 1
      return 1
    }
    $1 == "known" && !($2 in listed) {
      listed[$2] = 1
      split($2, part, ":")
      if (part[1] + 0 == 0) next
      before[part[1]] = part[2]
      order[++many] = $2
    }
    $1 == "marked" { split($2, part, "/"); carries[part[3]] = 1 }
    $1 == "inside" && $2 != guard && $2 != runlock && $2 + 0 > 0 { mine[$2] = 1 }
    $1 == "process" { id = substr($2, 7); if (id != guard && id != runlock) read_stat(id) }
    $1 == "end" { whole = 1 }
    END {
      delete before[guard]; delete before[runlock]
      for (id in carries) if (id in begun) mine[id] = 1
      for (id in before) if (id in begun && begun[id] == before[id]) mine[id] = 1
      do {
        more = 0
        for (id in begun)
          if (!(id in mine) && (parent[id] in mine || led(group[id]) || led(session[id]))) { mine[id] = 1; more = 1 }
      } while (more)
      for (id in mine) {
        if (!(id in begun)) continue
        if (alive[id]) printf "%s ", id
        if (!(id in before) || before[id] != begun[id]) order[++many] = id ":" begun[id]
      }
      printf "\\n"
      # Who is gone is forgotten, unless somebody is still in its group or session: its pid may soon be another one.
      for (i = 1; i <= many; i++) if (substr(order[i], 1, index(order[i], ":") - 1) in used) printf "%s ", order[i]
      printf "\\n"
      for (id in ended) if (ended[id] && alive[id] && !(id in mine)) printf "%s ", id
      printf "\\n"
      # It still can read what is certainly there.
      if (whole && read_stat(guard)) print "whole"
    }')
  { read -r seen && read -r all && read -r others && read -r word; } <<END
$found
END
  [ "$word" = whole ] || return 1
  pids=$seen known=$all hollow=$others
}

# Signals all in the run's cgroup but runlock and the guard. One by one takes a shell its time when there are thousands.
tell_folder() {
  read_folder
  case "$line_end$inside$line_end" in
    *"$line_end$$$line_end"* | *"$line_end$runlock$line_end"* | *"\${line_end}0$line_end"*)
      for one in $inside; do
        case $one in
          "$$" | "$runlock" | 0) ;;
          *) for signal; do kill "$signal" "$one"; done ;;
        esac
      done
      ;;
    *) [ -z "$inside" ] || for signal; do kill "$signal" $inside; done ;;
  esac
} 2>/dev/null

# Whether runlock, which was killed or stopped before it was out, is in the cgroup itself.
holds_runlock() {
  [ -d "/proc/$runlock" ] || return 1
  read_folder
  case "$line_end$inside$line_end" in *"$line_end$runlock$line_end"*) return 0 ;; esac
  return 1
}

# KILL for all in the cgroup, by the kernel if it can do that.
kill_folder() {
  [ -d "$folder" ] || return 0
  if ! holds_runlock; then
    ! echo 1 >"$folder/cgroup.kill" || return 0
    # Before Linux 5.14: what is frozen can not fork, and dies of KILL all the same.
    echo 1 >"$folder/cgroup.freeze"
  fi
  tell_folder -9
} 2>/dev/null

# Whether somebody but runlock and the guard is in the cgroup, or may be.
is_populated() {
  [ -d "$folder" ] || return 1
  if holds_runlock; then
    for one in $inside; do [ "$one" = $$ ] || [ "$one" = "$runlock" ] || return 0; done
    return 1
  fi
  while read -r name value; do [ "$name" != populated ] || [ "$value" != 0 ] || return 1; done <"$folder/cgroup.events"
  [ -d "$folder" ]
} 2>/dev/null

# Sets inner to the runlocks of runs inside this one, and to their guards: those die last, for they give slots back. What
# is to be read is the first line of each file, whose fields always have the same order.
find_inner() {
  inner=
  [ -n "$notes" ] || return 0
  for file in "$notes"/*.json; do
    [ -f "$file" ] && read -r line <"$file" || continue
    for name in runlock guard; do
      one=\${line#*\\"$name\\":{\\"pid\\":}
      [ "$one" != "$line" ] || continue
      born=\${one#*\\"startTime\\":\\"}
      one=\${one%%,*} born=\${born%%\\"*}
      # Whether they live comes first: most of them do not, and this guard does not count.
      [ "$one" != $$ ] && is_of "$one" "$born" || continue
      case " $pids $line_end$inside$line_end" in *" $one "* | *"$line_end$one$line_end"*) inner="$inner $one " ;; esac
    done
  done
} 2>/dev/null

# Whether the process was started then: it is no other one of that pid.
is_of() {
  read -r stat <"/proc/$1/stat" || return 1
  born=$2
  set -- \${stat##*)}
  [ "\${20}" = "$born" ]
} 2>/dev/null

# Where no look at the processes works: the command itself, and its group, which may outlive it.
kill_command() {
  [ "$pid" != 0 ] || return 0
  read -r line <"/proc/$pid/stat" || { kill -9 "-$pid"; return 0; }
  set -- \${line##*)}
  [ "\${20}" != "$start" ] || kill -9 "-$pid" "$pid"
} 2>/dev/null

# KILL for all that the last look found.
strike() {
  [ -n "$whole" ] || kill_command
  inner=
  # What is inside of them is dead by now; three seconds are enough for the rest.
  [ "$now" -ge $((limit + 30)) ] || find_inner
  if [ -n "$inner" ]; then
    for one in $pids $inside; do
      case "$inner $$ $runlock 0 " in *" $one "*) ;; *) kill -9 "$one" ;; esac
    done
  else
    [ -z "$pids" ] || kill -9 $pids
    kill_folder
  fi
} 2>/dev/null

# A look while the kernel ends thousands would only take time from it. What never ends is waited for half a second.
await_kernel() {
  waited=0
  while [ "$waited" -lt 10 ] && [ -z "$inner" ] && is_populated; do
    sleep 0.05
    waited=$((waited + 1))
  done
}

# TERM, half a second later KILL, until two looks in a row find nothing.
fire() {
  # Should even a fork fail now, the shell ends here.
  trap strike_alone EXIT
  look_at_clock
  limit=$((now + 5)) empty=0 rounds=0 told= whole=
  tell_folder -15 -18
  while [ "$empty" -lt 2 ]; do
    look_at_clock
    if [ "$rounds" -gt 0 ]; then
      # A look at thousands takes its time: the one before is good enough when it is time for KILL.
      left=$((limit - now))
      [ "$left" -lt 1 ] || [ "$left" -gt 2 ] || sleep "0.$left"
      look_at_clock
      [ "$now" -lt "$limit" ] || { strike; await_kernel; }
    fi
    if scan; then whole=1; else whole=; fi
    look_at_clock
    if [ "$now" -ge "$limit" ]; then
      strike
    elif [ -z "$told" ] && [ -n "$pids" ]; then
      kill -15 $pids
      kill -18 $pids
      told=1
    fi
    if [ -n "$whole" ] && [ -z "$pids" ] && ! is_populated; then empty=$((empty + 1)); else empty=0; fi
    rounds=$((rounds + 1))
    if [ "$empty" -lt 2 ]; then
      if [ "$rounds" -lt 50 ]; then sleep 0.05; else sleep 5; fi
    fi
  done
  trap - EXIT
  [ -z "$folder" ] || rmdir "$folder"/*/*/ "$folder"/*/ "$folder" 2>/dev/null
}

trap hold_out EXIT
listen
fire
exit 3
`;
