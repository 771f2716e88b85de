import { storeContract } from '../contract.ts';
import { storeProperties } from '../model.ts';
import { openMemoryStore } from './memory-store.ts';

storeContract('memory store', {
  async open(t, options) {
    const store = openMemoryStore(options);
    t.after(() => store[Symbol.asyncDispose]());
    return store;
  },
});

storeProperties('memory store', { open: async () => openMemoryStore(), runs: 300 });
