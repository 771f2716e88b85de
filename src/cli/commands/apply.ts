/** `tulle apply -f` */
import { readFileSync } from 'node:fs';
import { parseManifest } from '#api/machinery/manifest.ts';
import { applyManifest } from '#client/apply.ts';
import { UserError } from '#lib/errors.ts';
import { connect } from '../client.ts';
import type { CommandContext } from '../program.ts';

/** All files are read and parsed before anything is sent: a mistake in the last one changes nothing. */
export async function applyCommand(
  flags: { filename: string[]; kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  const documents = flags.filename.flatMap((file) => parseManifest(readManifest(file), { file }));
  await using client = connect(flags.kubeconfig);
  for (const { kind, object, outcome } of await applyManifest(client, documents)) {
    const group = kind.group === '' ? '' : `.${kind.group}`;
    print(`${kind.kind.toLowerCase()}${group}/${object.metadata.name} ${outcome}`);
  }
}

function readManifest(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new UserError(`Cannot read the manifest "${file}"`, { cause });
  }
}
