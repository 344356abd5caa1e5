#!/bin/sh
# Counts the words of a text in three stages. After each it saves a checkpoint, so
# that an attempt that comes after a crash begins with the stage that was not done.
set -eu

file=$(sed 's/.*"file":"\([^"]*\)".*/\1/')     # of the submission, on stdin; agents.yaml admits plain names alone
work=${TMPDIR:-/tmp}/longhaul-pipeline/$LONGHAUL_RUN_ID  # the same in each attempt
done=$(echo "${LONGHAUL_STATE:-0}" | tr -cd 0-9)         # what the last checkpoint has saved
mkdir -p "$work"

stage() { # NUMBER NAME COMMAND: does it, unless an earlier attempt has
	if [ "$1" -gt "$done" ]; then
		echo '{"type":"stage","payload":{"number":'"$1"',"name":"'"$2"'"}}'
		$3
		echo '{"type":"checkpoint","payload":{"done":'"$1"'}}'
	fi
}

split() { tr -cs '[:alpha:]' '\n' <"$file" | tr '[:upper:]' '[:lower:]' | grep . >"$work/words"; }
count() { sort "$work/words" | uniq -c | sort -k1,1rn -k2 >"$work/counts"; }
pick()  { awk 'length($2) > 3 && n++ < 3 { printf "%s\"%s\":%d", s, $2, $1; s = "," }' "$work/counts" >"$work/top"; }

stage 1 "split into words" split
stage 2 "count them" count
stage 3 "pick the three that come most often" pick

echo "$(wc -l <"$work/words") words in all."   # any other line is text, for whoever watches
echo '{"type":"result","payload":{'"$(cat "$work/top")"'}}'
rm -r "$work"
