/** The program: reads the command line and hands over. Daemons are loaded only when they are asked for. */
import { describeFailure, EXIT_INTERRUPTED } from '#cli/output.ts';
import { createProgram } from '#cli/program.ts';
import { VERSION } from './version.ts';

const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    // The second time the person means it.
    if (interrupt.signal.aborted) process.exit(EXIT_INTERRUPTED);
    interrupt.abort(new Error(`ended by ${signal}`));
  });

const print = (line: string) => void process.stdout.write(`${line}\n`);
const program = createProgram(
  VERSION,
  {
    async server(flags, configFile) {
      const { runServer } = await import('./server.ts');
      await runServer(flags, configFile, interrupt.signal);
    },
    async agent(flags, configFile) {
      const { runAgent } = await import('./agent.ts');
      await runAgent(flags, configFile, interrupt.signal);
    },
    async uninstall(flags) {
      const { runUninstall } = await import('./uninstall.ts');
      await runUninstall(flags, print);
    },
    async backup(file, flags) {
      const { backupServer } = await import('./backup.ts');
      await backupServer(file, flags, print);
    },
    async restore(file, flags) {
      const { restoreServer } = await import('./backup.ts');
      await restoreServer(file, flags, print);
    },
  },
  { print, signal: interrupt.signal },
);

try {
  await program.parseAsync();
} catch (error) {
  const { text, exitCode } = describeFailure(error);
  process.stderr.write(`${text}\n`);
  process.exitCode = interrupt.signal.aborted ? EXIT_INTERRUPTED : exitCode;
}
process.exit();
