/** What `kubectl get` and `kubectl api-resources` show of each kind, as upstream's printers and storages say it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KINDS } from './registry.ts';

/** Short names and categories; columns, and behind the bar those of `-o wide`. */
const SHOWN: Readonly<Record<string, readonly [string, string]>> = {
  configmaps: ['cm', 'Name Data Age'],
  endpoints: ['ep', 'Name Endpoints Age'],
  events: ['ev', 'Last_Seen Type Reason Object Message | Subobject Source First_Seen Count Name'],
  namespaces: ['ns', 'Name Status Age'],
  nodes: [
    'no',
    'Name Status Roles Age Version | Internal-IP External-IP OS-Image Kernel-Version Container-Runtime',
  ],
  pods: ['po +all', 'Name Ready Status Restarts Age | IP Node Nominated_Node Readiness_Gates'],
  secrets: ['', 'Name Type Data Age'],
  serviceaccounts: ['sa', 'Name Secrets Age'],
  services: ['svc +all', 'Name Type Cluster-IP External-IP Port(s) Age | Selector'],
  customresourcedefinitions: ['crd crds +api-extensions', 'Name Created_At'],
  leases: ['', 'Name Holder Age'],
  endpointslices: ['', 'Name AddressType Ports Endpoints Age'],
  ingressclasses: ['', 'Name Controller Parameters Age'],
  ingresses: ['ing', 'Name Class Hosts Address Ports Age'],
  networkpolicies: ['netpol', 'Name Pod-Selector Age'],
  servicecidrs: ['', 'Name CIDRs Age'],
  clusterroles: ['', 'Name Created_At'],
  roles: ['', 'Name Created_At'],
  clusterrolebindings: ['', 'Name Role Age | Users Groups ServiceAccounts'],
  rolebindings: ['', 'Name Role Age | Users Groups ServiceAccounts'],
};

for (const kind of KINDS)
  test(`${kind.resource} of "${kind.group}" are shown as upstream shows them`, () => {
    const names = (priority: number) =>
      kind.columns
        .filter((column) => column.priority === priority)
        .map(({ name }) => name.replaceAll(' ', '_'));
    const wide = names(1);
    const columns = [...names(0), ...(wide.length === 0 ? [] : ['|', ...wide])].join(' ');
    const words = [...kind.shortNames, ...kind.categories.map((name) => `+${name}`)].join(' ');
    const shown = SHOWN[kind.resource];
    if (shown !== undefined) assert.deepEqual([words, columns], shown);
    // What is ours, or of a group that has no printers of its own, has at least a name and something to tell.
    else assert.ok(/tulle|policy/.test(kind.group) && kind.columns.length > 2, kind.resource);
    assert.ok(
      kind.columns.some(({ format }) => format === 'name'),
      'a column to name objects by',
    );
  });
