/** `tulle server backup FILE`, from a running server, and `tulle server restore FILE`, into a stopped one's directory. */
import {
  closeSync,
  createReadStream,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { connect } from '#cli/client.ts';
import { syncDirectory } from '#lib/atomic-file.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { type BackupPage, BackupWriter, readBackup } from '#store/backup.ts';
import { restoreEmbedded } from '#store/embedded/restore.ts';

const BACKUP_PATH = '/tulle/v1/backup';
const DEFAULT_DATA_DIRECTORY = '/var/lib/tulle/server';

/** Writes the newest state of the server's store to a file, which is there whole or not at all. @throws UserError */
export async function backupServer(
  path: string,
  flags: { readonly kubeconfig?: string },
  print: (line: string) => void,
): Promise<void> {
  await using client = connect(flags.kubeconfig);
  const temporary = `${path}.new-${process.pid}`;
  const writer = new BackupWriter();
  let entries = 0;
  let revision: number | undefined;
  try {
    // It holds what secrets hold.
    const file = openSync(temporary, 'w', 0o600);
    try {
      for (let after: string | undefined; ; ) {
        const query = new URLSearchParams({
          ...(revision === undefined ? {} : { revision: String(revision) }),
          ...(after === undefined ? {} : { after }),
        });
        const answer = await client.raw('GET', `${BACKUP_PATH}?${query}`);
        const page = JSON.parse(answer.body) as BackupPage;
        if (revision === undefined) writeSync(file, writer.head(page.revision));
        revision = page.revision;
        for (const entry of page.entries) writeSync(file, writer.entry(entry));
        entries += page.entries.length;
        after = page.entries.at(-1)?.key;
        if (!page.more || after === undefined) break;
      }
      writeSync(file, writer.end());
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new UserError(`Cannot back up the server to "${path}": ${explainError(cause)}`, {
      hint: 'The server must run, and the kubeconfig be an administrator’s.',
      cause,
    });
  }
  print(`${entries} entries at revision ${revision} are in ${path}`);
  print('The keys and certificates are not in it: keep a copy of the data directory’s "pki", too.');
}

/** Puts a backup in the place of the store in a data directory. @throws UserError */
export async function restoreServer(
  path: string,
  flags: { readonly dataDir?: string },
  print: (line: string) => void,
): Promise<void> {
  const directory = flags.dataDir ?? DEFAULT_DATA_DIRECTORY;
  let backup: Awaited<ReturnType<typeof readBackup>>;
  try {
    backup = await readBackup(createInterface({ input: createReadStream(path), crlfDelay: 0 }));
  } catch (cause) {
    throw new UserError(`Cannot read the backup "${path}": ${explainError(cause)}`, {
      hint: 'Give a file that "tulle server backup" wrote. Nothing was changed.',
      cause,
    });
  }
  const restored = await restoreEmbedded(backup, { directory, nowMs: Date.now() });
  print(
    `${restored.entries} entries of revision ${backup.revision} are now the store in ${directory}`,
  );
  print(`It goes on from revision ${restored.revision}; clients read everything anew.`);
  if (restored.previous !== undefined) print(`What was there before is ${restored.previous}`);
}
