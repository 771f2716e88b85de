/** A worker for tests that crashes at its first query when the file named by the environment is missing, and makes it. */
import { existsSync, writeFileSync } from 'node:fs';
import { UdpBatchSocket } from '#linux/udp-batch.ts';

const marker = process.env.TULLE_TEST_CRASH_MARKER ?? '';
if (!existsSync(marker)) {
  const { receive } = UdpBatchSocket.prototype;
  UdpBatchSocket.prototype.receive = function crash(this: UdpBatchSocket): number {
    const count = receive.call(this);
    if (count === 0) return 0;
    writeFileSync(marker, '');
    throw new Error('crash on purpose');
  };
}
await import('./worker.ts');
