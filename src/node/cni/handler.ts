/** From a plugin's call to its answer: parses, dispatches, and turns every failure into a CNI error. */
import { explainError, KernelError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { peekCniVersion } from '#wire/cni/config.ts';
import { CNI_ERROR, CniError, encodeCniError } from '#wire/cni/error.ts';
import { type CniRequest, parseCniRequest } from '#wire/cni/request.ts';
import { encodeCniResult } from '#wire/cni/result.ts';
import { encodeVersionAnswer } from '#wire/cni/version.ts';
import type { Attacher } from './attacher.ts';
import type { PluginAnswer, PluginCall } from './protocol.ts';
import type { AddRequest } from './target.ts';

/** Answers calls with an attacher. Never rejects. */
export function createCniHandler(
  attacher: Attaching,
  log: Logger,
): (call: PluginCall) => Promise<PluginAnswer> {
  return async (call) => {
    const what = {
      command: call.env.CNI_COMMAND,
      container: call.env.CNI_CONTAINERID,
      ifName: call.env.CNI_IFNAME,
    };
    try {
      const request = parseCniRequest(call.env, call.stdin);
      const stdout = await run(attacher, request, call.stdin);
      log.debug(what, 'CNI call succeeded');
      return { exitCode: 0, stdout };
    } catch (error) {
      const told = toCniError(error);
      log.warn(
        { ...what, code: told.cniCode, details: told.details },
        `CNI call failed: ${told.message}`,
      );
      return { exitCode: 1, stdout: encodeCniError(told, peekCniVersion(call.stdin)) };
    }
  };
}

type Attaching = Pick<Attacher, 'add' | 'delete' | 'check' | 'collect' | 'status'>;

async function run(attacher: Attaching, request: CniRequest, stdin: string): Promise<string> {
  switch (request.command) {
    case 'ADD':
      return add(attacher, request);
    case 'CHECK':
      await attacher.check(request);
      return '';
    case 'DEL':
      await attacher.delete(request);
      return '';
    case 'GC':
      await attacher.collect(request);
      return '';
    case 'STATUS':
      await attacher.status(request);
      return '';
    case 'VERSION':
      return encodeVersionAnswer(stdin.trim() === '' ? undefined : peekCniVersion(stdin));
  }
}

async function add(attacher: Attaching, request: AddRequest): Promise<string> {
  const result = await attacher.add(request);
  try {
    return encodeCniResult(result, request.config.cniVersion);
  } catch (error) {
    // The oldest versions have no words for some results; a failed ADD leaves nothing behind.
    await attacher.delete({ ...request, command: 'DEL' });
    throw error;
  }
}

function toCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  const code = error instanceof KernelError ? CNI_ERROR.io : CNI_ERROR.internal;
  return new CniError(code, explainError(error), { cause: error });
}
