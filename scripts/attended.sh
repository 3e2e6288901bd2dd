# shellcheck shell=bash
# Sourced by the other scripts.

# attended COMMAND…: runs the command and returns its exit code, like a plain call, but a signal to this script reaches
# the command and everything it started at once. (Bash would otherwise hold a SIGTERM back until the command ends, and
# cargo does not pass it on to the tests it runs.) At a terminal the command stays in the foreground, where Ctrl-C
# reaches it by itself and it can read the keyboard. Leaves the signal's name, or nothing, in interrupted_by; the
# script's own traps for INT, TERM and HUP are gone afterwards.
# shellcheck disable=SC2034 # interrupted_by is for the caller
attended() {
  local child code seen signal
  signals=0 interrupted_by=''
  if [ -t 0 ]; then
    trap 'interrupted_by=INT' INT
    trap 'interrupted_by=TERM' TERM HUP
    code=0
    "$@" || code=$?
  else
    set -m # a process group of its own
    "$@" <&0 &
    child=$!
    set +m
    for signal in INT TERM HUP; do
      # shellcheck disable=SC2064 # the values of now
      trap "signals=\$((signals + 1)); interrupted_by=$signal; kill -s $signal -- -$child 2>/dev/null || true" "$signal"
    done
    while :; do
      seen=$signals code=0
      wait "$child" || code=$?
      [ "$signals" -ne "$seen" ] || break # not woken by a signal: this is the command's own code
    done
  fi
  trap - INT TERM HUP
  return "$code"
}
