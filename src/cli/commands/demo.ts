/** `tulle demo` */
import { runDemo } from '#lab/demo/demo.ts';
import type { CommandContext } from '../program.ts';

export async function demoCommand(
  flags: { keep: boolean; name: string },
  context: CommandContext,
): Promise<void> {
  const held = await runDemo({
    keep: flags.keep,
    name: flags.name,
    print: context.print,
    signal: context.signal,
  });
  if (!held) process.exitCode = 1;
}
