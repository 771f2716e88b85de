/**
 * What every implementation of `NetworkStack` must do, as tests: run over the fake, and over the kernel in scratch
 * namespaces. A difference between the two is found here, so that code tested on the fake holds on the kernel.
 */
import { afterEach, beforeEach, describe } from 'node:test';
import type { NetnsPath } from '../netns.ts';
import { linkContract, linkKindContract } from './contract-links.ts';
import { addressContract, lookupContract, routeContract } from './contract-routes.ts';
import type { Context } from './contract-support.ts';
import { fdbContract, neighbourContract, ruleContract, sysctlContract } from './contract-tables.ts';
import { watchContract } from './contract-watch.ts';
import type { NetworkStack } from './port.ts';

/** Two empty namespaces: only `lo`, which is down. */
export interface ContractStacks extends Disposable {
  readonly host: NetworkStack;
  readonly pod: NetworkStack;
  readonly podNetns: NetnsPath;
}

export function networkStackContract(name: string, makeStacks: () => ContractStacks): void {
  describe(`NetworkStack on ${name}`, () => {
    let stacks: ContractStacks;
    const context: Context = {
      host: () => stacks.host,
      pod: () => stacks.pod,
      podNetns: () => stacks.podNetns,
    };
    beforeEach(() => {
      stacks = makeStacks();
    });
    afterEach(() => stacks[Symbol.dispose]());
    linkContract(context);
    linkKindContract(context);
    addressContract(context);
    routeContract(context);
    lookupContract(context);
    neighbourContract(context);
    fdbContract(context);
    ruleContract(context);
    sysctlContract(context);
    watchContract(context);
  });
}
