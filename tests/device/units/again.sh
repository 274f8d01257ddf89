# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
kill -KILL "$(property lab-a-backend.service MainPID)"
until_it_is is lab-a-backend.service failed
# QEMU keeps the memory, so the VM goes on, and no second back-end takes over.
sleep 1
is lab-a.service active && is lab-a-backend.service failed || fail "something was started or ended"
before=$(property lab-a.service MainPID)
systemctl restart lab-a.service
is lab-a.service active && is lab-a-backend.service active || fail "not started again"
[[ $(property lab-a.service MainPID) != "$before" ]]
is lab-b.service active || fail "the other VM is gone"

# A VM that is killed is reported, and ends its back-end, which nobody needs.
kill -KILL "$(property lab-a.service MainPID)"
until_it_is is lab-a.service failed
until_it_is is lab-a-backend.service inactive
systemctl start lab.target
is lab-a.service active && is lab-a-backend.service active || fail "not started again by the target"
