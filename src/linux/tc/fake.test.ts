import { describe } from 'node:test';
import { trafficControlContract } from './contract.ts';
import { FakeTrafficControl } from './fake.ts';

describe('FakeTrafficControl', () =>
  trafficControlContract(() => {
    const tc = new FakeTrafficControl();
    return { tc, link: 2, [Symbol.dispose]: () => tc[Symbol.dispose]() };
  }));
