/** What one run of a program costs, as the kernel counts it. */
import { arch } from 'node:os';
import { firstLine } from './processes.ts';

export interface Usage {
  /** From before fork(2) to the end, in milliseconds. */
  readonly wallMs: number;
  /** User and system time of the process and of all descendants that were waited for, in milliseconds. */
  readonly cpuMs: number;
  /** Resident memory at its peak, of the largest of these processes, in MB. */
  readonly peakMb: number;
}

/** Numbers of clock_gettime(2) and wait4(2). */
const syscalls: Readonly<Record<string, readonly [number, number]>> = { x64: [228, 61], arm64: [113, 260] };

/**
 * Runs its arguments and prints wall time, user and system time (ns, µs, µs) and the peak (kB). In Perl, which Debian
 * always has: Node.js can't ask wait4(2), and `time` and bash round to hundredths or thousandths of a second.
 */
const script = `
my ($clock_gettime, $wait4) = splice @ARGV, 0, 2;
sub now { my $time = pack 'q2', 0, 0; syscall($clock_gettime, 1, $time); my ($s, $ns) = unpack 'q2', $time; $s * 1e9 + $ns }
my $start = now();
my $pid = fork() // die "fork: $!";
unless ($pid) { open STDOUT, '>', '/dev/null'; exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!" }
my ($status, $usage) = (pack('i', 0), pack 'q18', (0) x 18);
syscall($wait4, $pid, $status, 0, $usage) == $pid or die "wait4: $!";
my $wall = now() - $start;
my @usage = unpack 'q5', $usage;
printf "%d %d %d %d\\n", $wall, $usage[0] * 1e6 + $usage[1], $usage[2] * 1e6 + $usage[3], $usage[4];
exit(unpack('i', $status) ? 1 : 0);
`;

/** @throws Error when it does not end with 0. */
export async function usageOf(command: readonly string[], env: NodeJS.ProcessEnv): Promise<Usage> {
  const numbers = syscalls[arch()];
  if (!numbers) throw new Error(`the benchmark knows no system calls of ${arch()}; add them to usage.ts`);
  const line = await firstLine(['perl', '-e', script, ...numbers.map(String), ...command], env);
  const [wallNs = NaN, userUs = NaN, systemUs = NaN, peakKb = NaN] = line.split(' ').map(Number);
  return { wallMs: wallNs / 1e6, cpuMs: (userUs + systemUs) / 1e3, peakMb: peakKb / 1024 };
}
