# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
cat >$lab/limits.toml <<END
[pool]
size = "64M"
[[vm]]
name = "limited"
memory = "512M"
access = "ro"
cpu-weight = 7
memory-max = "1G"
END

pid_of_vm() {
    local file words
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' -t words 2>/dev/null <"$file" || continue
        if [[ ${words[1]-} == "$lab/qemu" && " ${words[*]} " == *" -name limited "* ]]; then
            file=${file%/cmdline}
            echo "${file#/proc/}"
            return
        fi
    done
    return 1
}

vhost-famfs up $lab/limits.toml --qemu $lab/qemu --image $lab/image --overcommit &
up=$!
until_it_is pid_of_vm >/dev/null
pid=$(pid_of_vm)
group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
[[ $group == *.scope ]] || fail "not in a scope: $group"
[[ $(<"$group/cpu.weight") == 7 ]] || fail "weight: $(<"$group/cpu.weight")"
[[ $(<"$group/memory.max") == $((1 << 30)) ]] || fail "memory: $(<"$group/memory.max")"
# What is started is what is ended, though another program started it.
kill -INT $up
if wait $up; then
    fail "up succeeded although its VM never came up"
fi
until_it_is test ! -e "/proc/$pid"
until_it_is test ! -e "$group"
