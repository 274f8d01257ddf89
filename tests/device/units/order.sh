# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
systemctl start lab.target
for unit in lab-pool lab-a-backend lab-a lab-b; do
    is $unit.service active || fail "$unit is not active"
done
[[ -S $runtime/lab/a.sock ]] || fail "no socket: $(find "$runtime")"
moments=(
    "$(property lab-pool.service ActiveEnterTimestampMonotonic)"
    "$(property lab-a-backend.service ExecMainStartTimestampMonotonic)"
    "$(property lab-a-backend.service ActiveEnterTimestampMonotonic)"
    "$(property lab-a.service ExecMainStartTimestampMonotonic)"
)
sorted=$(printf '%s\n' "${moments[@]}" | sort -n)
[[ $(printf '%s\n' "${moments[@]}") == "$sorted" ]] || fail "in another order: ${moments[*]}"
(($(property lab-b.service ExecMainStartTimestampMonotonic) >= moments[0])) || fail "b before the pool"
limits=$(systemctl show lab-b.service --property CPUWeight --property MemoryMax --property CPUAffinity)
[[ $limits == *CPUWeight=7* && $limits == *MemoryMax=$((3 << 30))* && $limits == *CPUAffinity=0* ]] ||
    fail "not its limits: $limits"
famfs --pool $lab/pool fsck >/dev/null
