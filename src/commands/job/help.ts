/** `runlock job --help`, below the options. */
export const JOB_HELP = `
A job asks nodes to run a task that their own files define ('runlock task --help'); 'runlock agent' on each node serves
it. The nodes run it in their turn: with the group's slots, queue, health gate and freeze, beside cron's runs.

  start TASK   ask nodes for it; answers when each has accepted or refused, with --watch at the job's end
  retry JOB    start a new job for the nodes of this one that are not good, once it is over
  show JOB     show the job and what became of each node
  list         list the jobs, the newest first
  watch JOB    follow the job to its end; Ctrl-C leaves the job alone
  logs JOB NODE
               print the output of the job's run on a node; its agent sends it in pieces
  cancel JOB   stop the job: what has not started never starts. Runs that are under way go on, without --kill

A job is named by its id, which belongs to the principal: deploy-42, or ops/deploy-42. The principal is a part of the keys
in Consul, so the token decides who may ask as whom, and each task's file whom it allows. Without --principal,
RUNLOCK_PRINCIPAL or 'principal' in the configuration file it is ops.

The nodes are those that fit all of --node, --service with --tag, --meta, --filter, --group and --from-job. They are looked up
once, at the start. --canary runs on some of them first, --steps on more and more; a stage begins when the one before it has
ended with a good node in it. If more nodes fail than --max-failures allows, the job stops: what has not started never starts.

Before anything is written, each node's agent is looked up: if one is not running (see --offline), has no such task or
parameter, or does not allow the principal, nothing is started. --dry-run says what each node would do.
With --id a start can be repeated: the same id with the same request is the same job, any other request is refused (64).

Exit codes of start: 0 all nodes accepted; 4 some refused, or their time was over; 75 no answer within --wait. Exit codes
of watch, and of start with --watch: 0 all nodes succeeded; 1 some failed; 2 the job was stopped before all had started;
3 cancelled; 4 none failed, but some never ran; 130 Ctrl-C. All: 64 wrong usage, or no such parameter; 69 Consul
unreachable; 74 stdout could not be written; 75 the job to retry is not over, or was retried already, and of
logs no answer within --wait, or the agent says why there is none; 77 Consul denied
access, or a task does not allow the principal; 78 no node found, a node without agent or task, no such job, or a stored
record that this version can't read; 128+n killed by signal n.

Examples:
  runlock job start chef --node web01 --watch
  runlock job start chef --node web01,web02 --param recipe=web::deploy --reason 'release 42' --id release-42
  runlock job start chef --service web --canary 1 --steps 10%,50% --pause 10m --max-failures 2 --watch
  runlock job retry release-42 --failed --watch
  runlock job list
  runlock job watch release-42
  runlock job logs release-42 web01 --follow
  runlock job cancel release-42 --reason 'wrong version'`;
