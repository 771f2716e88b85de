/**
 * Sends batches and reads the kernel's answers. The kernel checks and applies a whole batch inside `send`, so all its
 * answers are waiting in the socket when that has ended; it may end on another thread while the next batch is encoded.
 */
import { ENOBUFS, KernelError } from '#lib/errors.ts';
import { NETLINK_NETFILTER } from '#wire/netlink/constants.ts';
import { type BatchError, readBatchErrors } from '#wire/nftables/batch-errors.ts';
import { describeOperation, formatElementAt } from '#wire/nftables/format.ts';
import type { NftSet, SetRef, Transaction } from '#wire/nftables/objects.ts';
import {
  type EncodedTransaction,
  messageOf,
  operationOf,
} from '#wire/nftables/transaction-encoder.ts';
import { openWriteAhead, type WriteAhead } from '../ffi/aio.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';

/** Largest batch: some five million elements. It is only a limit; memory is used as needed. */
const MAX_BATCH_BYTES = 512 * 1024 * 1024;
/** Answers are short; only a batch of many failing messages makes a lot of them. */
const ANSWER_QUEUE_BYTES = 8 * 1024 * 1024;
const OP = 'commit an nftables transaction';

/** A transaction with its bytes. */
export interface Batch {
  readonly operations: Transaction;
  readonly encoded: EncodedTransaction;
}

export class BatchSocket implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #ahead: WriteAhead | undefined = openWriteAhead();
  #underWay: Batch | undefined;

  constructor(netns: Netns | NetnsPath | undefined) {
    this.#socket = new NetlinkSocket({
      ...{ protocol: NETLINK_NETFILTER, netns },
      sendQueueBytes: MAX_BATCH_BYTES,
      receiveQueueBytes: ANSWER_QUEUE_BYTES,
    });
  }

  /** @returns undefined on success @throws KernelError if the batch does not get to the kernel */
  send(batch: Batch): KernelError | undefined {
    if (batch.encoded.operationMessages === 0) return undefined;
    this.#socket.send(OP, batch.encoded.bytes);
    return this.#answer(batch);
  }

  /**
   * Begins to send, on a thread of the C library's if it has one. {@link finish} must come before anything else.
   * @param batch its bytes must stay as they are until then
   */
  start(batch: Batch): void {
    const { bytes, operationMessages } = batch.encoded;
    if (operationMessages > 0 && this.#ahead?.start(this.#socket.fd, bytes) !== 0)
      this.#socket.send(OP, bytes);
    this.#underWay = batch;
  }

  /** Blocks until what was started has ended. @returns as {@link send} does; undefined also if nothing was started */
  finish(): KernelError | undefined {
    const batch = this.#underWay;
    this.#underWay = undefined;
    if (this.#ahead?.isUnderWay) {
      const sent = this.#ahead.wait();
      if (sent < 0) return new KernelError(OP, -sent);
    }
    return batch === undefined || batch.encoded.operationMessages === 0
      ? undefined
      : this.#answer(batch);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #answer({ operations, encoded }: Batch): KernelError | undefined {
    let acknowledged = false;
    let failure: KernelError | undefined;
    for (;;) {
      const answers = this.#socket.receive(OP, false);
      if (answers.length === 0) break;
      for (const error of readBatchErrors(answers)) {
        if (error.errno !== 0) failure ??= failureOf(operations, encoded, error);
        else if (error.sequence === encoded.lastSequence) acknowledged = true;
      }
    }
    if (failure === undefined && !acknowledged)
      return new KernelError(OP, ENOBUFS, { extack: 'the kernel gave no answer' });
    return failure;
  }
}

/** Names the operation that the kernel refused, and the element if it pointed at one. */
function failureOf(
  operations: Transaction,
  encoded: EncodedTransaction,
  error: BatchError,
): KernelError {
  const index = operationOf(encoded, error.sequence);
  const operation = index === undefined ? undefined : operations[index];
  if (operation === undefined) return new KernelError(OP, error.errno, { extack: error.extack });
  let op = describeOperation(operation);
  if (operation.kind === 'elements' && error.offset !== undefined) {
    const message = messageOf(encoded, error.sequence);
    const element =
      message && formatElementAt(message.subarray(error.offset), setIn(operations, operation.ref));
    if (element !== undefined) op += ` { ${element} }`;
  }
  return new KernelError(`${op} (operation ${index} of ${operations.length})`, error.errno, {
    extack: error.extack,
    index,
  });
}

/** The set as the transaction makes it, if it does: with its types an element reads better. */
function setIn(operations: Transaction, ref: SetRef): NftSet | undefined {
  for (const operation of operations)
    if (
      operation.kind === 'set' &&
      'object' in operation &&
      operation.object.set === ref.set &&
      operation.object.table === ref.table &&
      operation.object.family === ref.family
    )
      return operation.object;
  return undefined;
}
