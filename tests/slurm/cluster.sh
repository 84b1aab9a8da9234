#!/bin/bash
# A private Slurm cluster of N virtual nodes on this machine, for tests: the real slurmctld, slurmd and munged of Debian,
# no systemd.
#
#   cluster.sh up N DIR [--cpus C] [--gpus G] [--set KEY=VALUE]...   starts nodes n1..nN; prints the environment to use it
#   cluster.sh env DIR              prints that environment again
#   cluster.sh down DIR             cancels its jobs and stops it
#   cluster.sh exec K DIR CMD...    runs a command on node K: its host name, its processes
#   cluster.sh crash K DIR          node K dies at once with all that runs on it
#   cluster.sh boot K DIR           starts node K again
#   cluster.sh stop-controller DIR | start-controller DIR    slurmctld dies (kill -9); comes back
#
#   env=$(cluster.sh up 2 /tmp/c) && eval "$env" && sbatch ...; cluster.sh down /tmp/c
#
# C: CPUs that each node claims to have (2); they may exceed the real number. G: fake GPUs of each node (0). --set: a line
# of slurm.conf that wins over ours. DIR: short (sockets' paths end at 107 bytes). Needs root and the packages slurm-wlm,
# munge and util-linux. All that it makes lies in DIR, and it ends only processes that it started.
#
# A node is a UTS, IPC, PID and mount namespace of its own, with host name, /proc, /dev/shm and /etc/hosts: Open MPI would
# otherwise take the ranks of all nodes for neighbours in shared memory. When the namespace's first process ends, so does
# all that ran on the node: a faithful crash, and an end that leaves nothing behind.
set -u -o pipefail

die() { echo "cluster: $*" >&2; exit 1; }
usage() { sed -n '5,12s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 64; }

# --- processes: noted as "pid start-time", so that a number used again is never taken for them ------------------------

start_time() { # PID: clock ticks since boot; fails for one that is gone or dead
    local text fields
    [ -n "$1" ] && text=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a fields <<<"${text##*) }"
    [ "${fields[0]}" != Z ] && [ "${fields[0]}" != X ] && echo "${fields[19]}"
}
note() { # PID FILE
    local start
    start=$(start_time "$1") && echo "$1 $start" >"$2"
}
pid_of() { cut -d' ' -f1 "$1"; }
alive() { # FILE
    local pid start
    [ -s "$1" ] && read -r pid start <"$1" && [ "$(start_time "$pid")" = "$start" ]
}
wait_until() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}
gone() { ! alive "$1"; }
end() { # FILE SIGNAL SECONDS: KILL if that is not enough
    alive "$1" && kill "-$2" "$(pid_of "$1")" 2>/dev/null
    if ! wait_until "$3" gone "$1"; then
        kill -KILL "$(pid_of "$1")" 2>/dev/null
        wait_until 60 gone "$1" || die "process $(pid_of "$1") does not end"
    fi
    rm -f "$1"
}

# --- nodes --------------------------------------------------------------------------------------------------------------

on() { # NODE COMMAND...
    nsenter -t "$(pid_of "$dir/run/$1.init")" -u -i -p -m -- "${@:2}"
}

# The first process of a node: sets it up, then takes in orphans until it is killed.
be_node() { # NODE
    if ! { hostname "$1" && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && mount --bind "$dir/hosts" /etc/hosts; }; then
        exit 1
    fi
    : >"$dir/run/$1.ready"
    trap 'exit 0' TERM
    while true; do
        sleep 3600 &
        wait $!
    done
}

start_node() { # NODE
    alive "$dir/run/$1.init" && return
    rm -f "$dir/run/$1".*
    setsid unshare --uts --ipc --pid --mount --fork --kill-child --mount-proc bash "$self" be-node "$dir" "$1" \
        </dev/null >>"$dir/log/$1.init.log" 2>&1 &
    local parent=$!
    if ! wait_until 60 pgrep -P "$parent" >/dev/null || ! note "$(pgrep -P "$parent")" "$dir/run/$1.init"; then
        die "$1: no namespaces (root?), see $dir/log/$1.init.log"
    fi
    wait_until 60 test -e "$dir/run/$1.ready" || die "$1 did not come up, see $dir/log/$1.init.log"
}

# A daemon's pid file holds its number inside the node; this is its number outside.
outside_pid() { # NODE PIDFILE
    local inside file pid space
    inside=$(tr -dc 0-9 <"$2") && [ -n "$inside" ] || return 1
    space=$(readlink "/proc/$(pid_of "$dir/run/$1.init")/ns/pid")
    while read -r file; do
        pid=${file//[!0-9]/}
        if [ "$(readlink "/proc/$pid/ns/pid" 2>/dev/null)" = "$space" ]; then
            echo "$pid"
            return
        fi
    done < <(grep -lsE "^NSpid:.*[[:space:]]$inside\$" /proc/[0-9]*/status)
    return 1
}
start_daemon() { # NAME NODE PIDFILE COMMAND...
    local name=$1 node=$2 pid_file=$3
    shift 3
    alive "$dir/run/$name" && return
    rm -f "$pid_file"
    on "$node" "$@" </dev/null >>"$dir/log/$name.out" 2>&1 || die "$name: $(tail -n 3 "$dir/log/$name.out")"
    if ! wait_until 60 test -s "$pid_file" || ! note "$(outside_pid "$node" "$pid_file")" "$dir/run/$name"; then
        die "$name ended at its start, see $dir/log"
    fi
}
start_munged() {
    alive "$dir/run/munged" || rm -f "$dir"/munge/s*
    start_daemon munged head "$dir/munge/pid" munged --key-file="$dir/munge/key" --socket="$dir/munge/s" \
        --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --origin=127.0.0.1
}
start_controller() { start_daemon slurmctld head "$dir/run/slurmctld.pid" slurmctld -f "$conf"; }
boot() { # NUMBER
    local node=n$1
    # Nothing of the node's jobs has outlived a crash but sockets, which would break those that are started again.
    alive "$dir/run/$node.init" || rm -rf "$dir/spool/$node" "$dir/tmp/$node"
    mkdir -p "$dir/spool/$node" "$dir/tmp/$node"
    start_node "$node"
    start_daemon "slurmd-$node" "$node" "$dir/run/slurmd-$node.pid" env SLURM_CONF="$conf" slurmd -N "$node"
    scontrol update nodename="$node" state=resume >/dev/null 2>&1 || true   # one that was drained
}
crash() { # NUMBER
    end "$dir/run/n$1.init" KILL 5
    rm -f "$dir/run/slurmd-n$1"
}

# --- configuration ------------------------------------------------------------------------------------------------------

port_is_used() { grep -qiE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F:]+ 0A" /proc/net/tcp /proc/net/tcp6; }
free_ports() { # COUNT: the first of so many, below those that the kernel gives away
    local try port i
    for ((try = 0; try < 200; try++)); do
        port=$((17000 + ($(printf %s "$dir" | cksum | cut -d' ' -f1) + try * 61) % 14000))
        for ((i = 0; i < $1; i++)); do
            port_is_used $((port + i)) && continue 2
        done
        echo "$port"
        return
    done
    die "no free ports"
}

write_conf() { # NODES CPUS GPUS SETTING...
    local nodes=$1 cpus=$2 gpus=$3 port k setting
    shift 3
    port=$(free_ports $((nodes + 1)))
    {
        cat <<EOF
ClusterName=virtual
SlurmctldHost=head(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also how long a job that was requeued waits
AuthInfo=socket=$dir/munge/s,cred_expire=10
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
MailProg=/bin/true
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
$([ "$gpus" = 0 ] || echo GresTypes=gpu)
EOF
        for ((k = 1; k <= nodes; k++)); do
            echo "NodeName=n$k NodeHostname=n$k NodeAddr=127.0.0.1 Port=$((port + k)) CPUs=$cpus RealMemory=4000" \
                "$([ "$gpus" = 0 ] || echo "Gres=gpu:$gpus") State=UNKNOWN"
        done
        [[ " $*" == *" PartitionName="* ]] || echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
    } >"$conf"
    for setting in "$@"; do
        [[ $setting == PartitionName=* ]] || sed -i "/^${setting%%=*}=/d" "$conf"
        echo "$setting" >>"$conf"
    done
    echo 'PMIxCollFence=ring' >"$dir/mpi.conf"   # with the default about 1 of 100 starts by srun crashes in MPI_Init
    if [ "$gpus" != 0 ]; then
        for ((k = 0; k < gpus; k++)); do mknod "$dir/run/gpu$k" c 1 3; done
        printf '%s\n' AutoDetect=off \
            "NodeName=n[1-$nodes] Name=gpu Flags=nvidia_gpu_env File=$dir/run/gpu[0-$((gpus - 1))]" >"$dir/gres.conf"
    fi
    { grep -vE '[[:space:]](head|n[0-9]+)([[:space:]]|$)' /etc/hosts; echo 127.0.0.1 head
        for ((k = 1; k <= nodes; k++)); do echo "127.0.0.1 n$k"; done; } >"$dir/hosts"
    echo "$nodes" >"$dir/nodes"
}

# The nodes share one kernel and its loopback: Open MPI is told to talk there, and not to bind every node's first rank to
# the same core.
print_environment() {
    cat <<EOF
export SLURM_CONF='$conf' CLUSTER_DIR='$dir'
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_orte_tmpdir_base='$dir/tmp'
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
EOF
}

# --- commands -----------------------------------------------------------------------------------------------------------

all_idle() {
    local up
    up=$(timeout 5 sinfo -h -N -o '%N %T' 2>/dev/null | sort -u | grep -cE ' (idle|allocated|mixed|completing)$')
    [ "$up" = "$(cat "$dir/nodes")" ]
}

up() { # NODES OPTIONS...
    local nodes=$1 cpus=2 gpus=0 k
    local -a settings=()
    shift
    while [ $# -gt 1 ]; do
        case $1 in
            --cpus) cpus=$2 ;;
            --gpus) gpus=$2 ;;
            --set) settings+=("$2") ;;
            *) usage ;;
        esac
        shift 2
    done
    [ "$(id -u)" = 0 ] || die "needs root"
    for k in munged slurmctld slurmd unshare nsenter; do
        command -v "$k" >/dev/null || die "no $k here: apt-get install slurm-wlm munge util-linux"
    done
    [[ ${#dir} -le 60 && $dir =~ ^[A-Za-z0-9_./+-]+$ ]] || die "$dir: at most 60 letters, digits and _ . / + -"
    [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
    if ! { mkdir -p "$dir"/{run,state,spool,tmp,log} && mkdir -m 711 "$dir/munge" && chmod 1777 "$dir/tmp"; }; then
        die "cannot write in $dir"
    fi
    (umask 077; head -c 1024 /dev/urandom >"$dir/munge/key")
    write_conf "$nodes" "$cpus" "$gpus" "${settings[@]}"
    start_node head
    start_munged
    start_controller
    for ((k = 1; k <= nodes; k++)); do boot "$k"; done
    wait_until 120 all_idle || die "the nodes did not come up, see $dir/log"
    print_environment
}

down() {
    local k
    timeout 10 scancel --user="$(id -un)" >/dev/null 2>&1
    for ((k = 1; k <= $(cat "$dir/nodes"); k++)); do end "$dir/run/slurmd-n$k" TERM 5; done
    end "$dir/run/slurmctld" TERM 10
    end "$dir/run/munged" TERM 5
    for k in "$dir"/run/*.init; do end "$k" KILL 5; done
}

self=$(readlink -f "${BASH_SOURCE[0]}")
command=${1:-} number=''
[ $# -ge 2 ] || usage
shift
case $command in
    up | exec | crash | boot) number=$1; shift ;;
esac
[[ $number =~ ^[0-9]*$ && $# -ge 1 ]] || usage
[ "$command" != up ] || mkdir -p "$1"
dir=$(cd "$1" 2>/dev/null && pwd -P) || die "no folder $1"
shift
conf=$dir/slurm.conf
export SLURM_CONF=$conf
case $command in
    up) up "$number" "$@" ;;
    env) print_environment ;;
    down) down ;;
    exec) on "n$number" "$@" ;;
    crash) crash "$number" ;;
    boot) boot "$number" ;;
    stop-controller) end "$dir/run/slurmctld" KILL 5 ;;
    start-controller) start_controller ;;
    be-node) be_node "$1" ;;
    *) usage ;;
esac
