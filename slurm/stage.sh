# Sourced by the .sbatch files: runs one stage of a run folder until it is done or must not be tried again. The same code
# runs inside a Slurm job, which requeues itself (its id stays, so the stages that depend on it keep waiting), and on a
# machine without Slurm, where it begins anew at once. What to run and what an end means is said by job.py.

# Modules and environment of this centre: $ASTROCLIP_SITE, else slurm/site.sh if there is one.
load_site() {
    local site=${ASTROCLIP_SITE:-$ASTROCLIP_HOME/slurm/site.sh}
    if [ -r "$site" ]; then
        set +u   # the modules of many centres name variables that are not there
        # shellcheck source=/dev/null
        source "$site"
        set -u
    elif [ -n "${ASTROCLIP_SITE:-}" ]; then
        echo "error: ASTROCLIP_SITE=$site cannot be read" >&2
        exit 64
    fi
}

prepare_environment() {
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        # The variables reach the other nodes. With its default fence srun's start by PMIx fails in about 1 of 100 cases.
        export SLURM_EXPORT_ENV=ALL SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}
        [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    else
        # Ranks may outnumber the cores here: one that waits must not starve the one that it waits for.
        export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
    fi
    if [ "$(id -u)" = 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
}

# Ends this script with its job, which then waits for its next turn; returns if Slurm does not take it. Were the script to
# end by itself first, the job would count as failed. Of an array this task alone: its number may be the whole array's.
requeue() {
    local job=$SLURM_JOB_ID _
    [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    for _ in 1 2 3 4 5; do
        if scontrol requeue "$job"; then
            sleep 300
        fi
        sleep "${ASTROCLIP_RETRY_S:-20}"   # the controller may be restarting
    done
}

# run_stage STAGE RUN
run_stage() {
    local stage=$1 run=${2:?usage: $1.sbatch RUN}
    local job=$ASTROCLIP_HOME/slurm/job.py
    local -a command
    local code word python
    local asked='' pid=''
    trap 'asked=1; [ -z "$pid" ] || kill -USR2 "$pid" 2>/dev/null' USR2
    umask 027
    # Limits on repetition count the attempts of one submission; a script run by hand is one of its own.
    export ASTROCLIP_SUBMISSION=${ASTROCLIP_SUBMISSION:-by-hand-${SLURM_JOB_ID:-$$-$(date +%s)}}
    load_site
    prepare_environment
    python=${ASTROCLIP_PYTHON:-python3}

    while true; do
        mapfile -d '' -t command < <("$python" "$job" begin "$stage" "$run" || echo "failed $?")
        if [ "${#command[@]}" -lt 2 ]; then
            code=${command[0]#failed }
            exit "$((code))"
        fi
        echo "== $stage, job ${SLURM_JOB_ID:-${ASTROCLIP_JOB:-$$}}, $(hostname), $(date -u +%FT%TZ)"
        echo "== ${command[*]@Q}"
        "${command[@]}" </dev/null &
        pid=$!
        [ -z "$asked" ] || kill -USR2 "$pid" 2>/dev/null
        code=140   # 128 + USR2: the wait was interrupted by the trap
        while [ "$code" = 140 ]; do
            wait "$pid"
            code=$?
        done
        [ "$code" != 127 ] || code=140   # the launcher itself had died of USR2
        pid='' asked=''

        read -r word code < <("$python" "$job" end "$stage" "$run" "$code" || echo "stop 70")
        if [ "$word" != again ]; then
            [ "$code" = 0 ] && echo "== $stage: SUCCESS" || echo "== $stage: FAILED, exit code $code"
            exit "$code"
        fi
        echo "== $stage: exit code $code, running it again"
        if [ -n "${SLURM_JOB_ID:-}" ]; then
            requeue
            exit "$code"
        fi
    done
}
