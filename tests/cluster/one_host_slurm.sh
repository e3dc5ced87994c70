#!/bin/sh
# A real Slurm of one host, for tests: all daemons on this machine, without systemd.
#
#     tests/cluster/one_host_slurm.sh start    installs slurm-wlm and munge where they are missing
#                                              (Debian, as root), starts them, waits for the node
#     tests/cluster/one_host_slurm.sh stop     stops the daemons that `start` started
#
# SLURM_CPUS sets the cores that the node offers (all of this machine if left out).
set -eu

folder=/run/astri_one_host_slurm
state=/var/lib/astri_one_host_slurm
host=$(hostname -s)
cpus=${SLURM_CPUS:-$(nproc)}

say() { echo "one_host_slurm: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

install_packages() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return
    command -v apt-get >/dev/null || fail "install slurm-wlm and munge first: there is no apt-get."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurm-wlm munge >/dev/null
}

write_configuration() {
    mkdir -p /etc/slurm "$folder" "$state/ctld" "$state/d" /run/munge /var/log/munge /var/lib/munge
    chown munge: /run/munge /var/log/munge /var/lib/munge
    if [ ! -f /etc/munge/munge.key ]; then
        mkdir -p /etc/munge
        dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
    fi
    chown munge: /etc/munge /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
    if [ -f /etc/slurm/slurm.conf ] && ! grep -q "^# one_host_slurm" /etc/slurm/slurm.conf; then
        fail "/etc/slurm/slurm.conf belongs to somebody else: this machine has a Slurm already."
    fi
    memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    cat >/etc/slurm/slurm.conf <<END
# one_host_slurm: made by tests/cluster/one_host_slurm.sh
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MpiDefault=none
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    [ "$(id -u)" = 0 ] || fail "start it as root: Slurm's daemons need it."
    install_packages
    write_configuration
    if ! munge -n >/dev/null 2>&1; then
        runuser -u munge -- munged --pid-file=/run/munge/munged.pid
        touch "$folder/munged.ours"
    fi
    rm -rf "$state"/ctld/* "$state"/d/*
    slurmctld
    slurmd
    waited=0
    until sinfo -h -o %t 2>/dev/null | grep -q '^idle'; do
        waited=$((waited + 1))
        [ "$waited" -lt 60 ] || fail "the node is not idle after a minute: see $state/*.log"
        sleep 1
    done
    say "ready: $(sinfo -h -o '%N, %c cores, %t')"
}

stop_one() {
    [ -f "$1" ] || return 0
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || return 0
    waited=0
    while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt 20 ]; do
        waited=$((waited + 1))
        sleep 0.5
    done
}

stop() {
    [ -d "$folder" ] || return 0
    scancel --state=PENDING --state=RUNNING --user="$(id -un)" 2>/dev/null || true
    stop_one "$folder/slurmd.pid"
    stop_one "$folder/slurmctld.pid"
    if [ -f "$folder/munged.ours" ]; then
        stop_one /run/munge/munged.pid
    fi
    rm -rf "$folder"
    say "stopped"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*) fail "say start or stop." ;;
esac
