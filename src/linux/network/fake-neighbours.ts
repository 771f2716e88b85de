/** Neighbours, forwarding entries of VXLAN links and rules of the fake network. */
import { EAFNOSUPPORT, ENODEV, EOPNOTSUPP, KernelError } from '#lib/errors.ts';
import { familyOf } from '#lib/ip.ts';
import { neighbourFrom, neighbourMessage, ruleFrom, ruleMessage } from './convert.ts';
import { describeFdb, describeNeighbour, describeRule } from './describe.ts';
import type { FakeNamespace } from './fake-namespace.ts';
import { applyEach } from './fake-routes.ts';
import { isGroup } from './neighbours.ts';
import type { FdbEntry, Neighbour, NetworkStack, Rule } from './port.ts';

export function fakeNeighbours(namespace: FakeNamespace): NetworkStack['neighbours'] {
  const { neighbours, world } = namespace;
  const keyOf = (entry: Neighbour) => `${entry.link} ${entry.address}`;
  return {
    list: (filter = {}) =>
      [...neighbours.values()].filter(
        (n) =>
          (filter.link === undefined || n.link === filter.link) &&
          (filter.family === undefined || familyOf(n.address) === filter.family),
      ),
    replace(entries) {
      applyEach(
        entries,
        (entry) => `replace ${describeNeighbour(entry)}`,
        (entry, op) => {
          world.check(op);
          namespace.linkAt(entry.link, op, ENODEV);
          // By way of the message, so that it reads in the same form as from the kernel.
          const neighbour = neighbourFrom(neighbourMessage(entry));
          if (neighbour === undefined) return;
          neighbours.set(keyOf(entry), neighbour);
          namespace.emit({ type: 'neighbour', deleted: false, neighbour });
        },
      );
    },
    delete(entries) {
      applyEach(
        entries,
        (entry) => `delete ${describeNeighbour(entry)}`,
        (entry, op) => {
          world.check(op);
          const neighbour = neighbours.get(keyOf(entry));
          if (neighbour === undefined) return;
          neighbours.delete(keyOf(entry));
          namespace.emit({ type: 'neighbour', deleted: true, neighbour });
        },
      );
    },
  };
}

export function fakeFdb(namespace: FakeNamespace): NetworkStack['fdb'] {
  const { fdb, world } = namespace;
  // A group address has an entry for each destination, another MAC one entry.
  const keyOf = ({ link, mac, destination }: FdbEntry) =>
    `${link} ${mac} ${isGroup(mac) ? destination : ''}`;
  return {
    list: (link) => [...fdb.values()].filter((entry) => entry.link === link),
    replace(entries) {
      applyEach(
        entries,
        (entry) => `replace ${describeFdb(entry)}`,
        (entry, op) => {
          world.check(op);
          checkVtep(namespace, entry, op);
          if (fdb.get(keyOf(entry))?.destination === entry.destination) return;
          fdb.set(keyOf(entry), entry);
          namespace.emit({ type: 'fdb', deleted: false, entry });
        },
      );
    },
    delete(entries) {
      applyEach(
        entries,
        (entry) => `delete ${describeFdb(entry)}`,
        (entry, op) => {
          world.check(op);
          if (fdb.get(keyOf(entry))?.destination !== entry.destination) return;
          fdb.delete(keyOf(entry));
          namespace.emit({ type: 'fdb', deleted: true, entry });
        },
      );
    },
  };
}

/** A link that is no VXLAN is refused here; the kernel would take the MAC as one more of the link's own. */
function checkVtep(namespace: FakeNamespace, entry: FdbEntry, op: string): void {
  const { vxlan } = namespace.linkAt(entry.link, op, ENODEV);
  if (vxlan === undefined) throw new KernelError(op, EOPNOTSUPP);
  const family = vxlan.local === undefined ? 4 : familyOf(vxlan.local);
  if (familyOf(entry.destination) !== family) throw new KernelError(op, EAFNOSUPPORT);
}

export function fakeRules(namespace: FakeNamespace): NetworkStack['rules'] {
  const { world } = namespace;
  const normal = (rule: Rule) => ruleFrom(ruleMessage(rule)) ?? rule;
  return {
    list: (family) => namespace.rules.filter((rule) => rule.family === family),
    add(rule) {
      world.check(`add ${describeRule(rule)}`);
      const wanted = normal(rule);
      if (namespace.rules.some((r) => matches(r, wanted) && matches(wanted, r))) return;
      namespace.rules = [...namespace.rules, wanted].sort((a, b) => a.priority - b.priority);
      namespace.emit({ type: 'rule', deleted: false });
    },
    delete(rule) {
      world.check(`delete ${describeRule(rule)}`);
      const wanted = normal(rule);
      const gone = namespace.rules.find((r) => matches(r, wanted));
      if (gone === undefined) return;
      namespace.rules = namespace.rules.filter((r) => r !== gone);
      namespace.emit({ type: 'rule', deleted: true });
    },
  };
}

/** Whether `rule` has all that `wanted` gives. */
function matches(rule: Rule, wanted: Rule): boolean {
  return (Object.keys(wanted) as (keyof Rule)[]).every((key) => rule[key] === wanted[key]);
}
