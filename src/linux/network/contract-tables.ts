/** The contract of neighbours, forwarding entries, rules and settings. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EAFNOSUPPORT, EINVAL, ENODEV, isErrno } from '#lib/errors.ts';
import { cidr, type Ip, ip, mac } from '#lib/ip.ts';
import {
  type Context,
  errnoIs,
  found,
  MAC_A,
  MAC_B,
  NO_LINK,
  sorted,
  vethPair,
} from './contract-support.ts';
import type { VxlanConfig } from './port.ts';

export function neighbourContract({ host }: Context): void {
  test('neighbours.replace() adds and changes, delete() deletes, list() filters', () => {
    const { index } = vethPair(host());
    const other = found(host().links.get('b0')).index;
    const entry = (address: Ip, link = index) => ({ link, address, mac: MAC_A, permanent: true });
    const v4 = entry(ip('192.0.2.7'));
    const v6 = entry(ip('2001:db8::7'));
    host().neighbours.replace([v4, v6, entry(ip('192.0.2.7'), other)]);
    host().neighbours.replace([{ ...v4, mac: MAC_B }]);
    const list = (filter: { link?: number; family?: 4 | 6 }) =>
      host()
        .neighbours.list(filter)
        .filter((n) => n.permanent)
        .map(({ link, address, mac }) => ({ link, address, mac }));
    assert.deepEqual(list({ link: index, family: 4 }), [
      { link: index, address: v4.address, mac: MAC_B },
    ]);
    assert.equal(list({ link: index }).length, 2);
    assert.equal(list({}).length, 3);
    assert.deepEqual(list({ link: NO_LINK }), []);
    host().neighbours.delete([v4, v6, v4, { ...v4, link: NO_LINK }]);
    assert.deepEqual(list({ link: index }), []);
    assert.equal(list({ link: other }).length, 1);
  });

  test('neighbours.replace() reports an unknown link by the address', () => {
    assert.throws(
      () =>
        host().neighbours.replace([
          { link: NO_LINK, address: ip('192.0.2.7'), mac: MAC_A, permanent: true },
        ]),
      (error) => isErrno(error, ENODEV) && error.op.includes('"192.0.2.7"'),
    );
  });

  test('neighbours go when their link goes down', () => {
    const { index } = vethPair(host());
    host().neighbours.replace([
      { link: index, address: ip('192.0.2.7'), mac: MAC_A, permanent: true },
    ]);
    host().links.set(index, { up: false });
    assert.deepEqual(host().neighbours.list({ link: index, family: 4 }), []);
  });
}

export function fdbContract({ host }: Context): void {
  const vxlan = { vni: 9, port: 4789, local: ip('192.0.2.1'), device: undefined, learning: false };
  const make = (name: string, config: VxlanConfig) =>
    host().links.create({ kind: 'vxlan', name, up: true, vxlan: config }).index;

  test('fdb.replace() adds and changes, delete() deletes exactly, list() shows one link', () => {
    const link = make('vx0', vxlan);
    const other = make('vx1', { ...vxlan, vni: 10 });
    const a = { link, mac: MAC_A, destination: ip('192.0.2.2') };
    const b = { link, mac: MAC_B, destination: ip('192.0.2.3') };
    const moved = { ...a, destination: ip('192.0.2.4') };
    host().fdb.replace([a, b, { ...a, link: other }]);
    host().fdb.replace([moved, moved]);
    assert.deepEqual(sorted(host().fdb.list(link)), sorted([moved, b]));
    host().fdb.delete([a]);
    assert.equal(host().fdb.list(link).length, 2);
    host().fdb.delete([moved, b, b, { ...b, link: NO_LINK }]);
    assert.deepEqual(host().fdb.list(link), []);
    assert.equal(host().fdb.list(other).length, 1);
    assert.deepEqual(host().fdb.list(NO_LINK), []);
  });

  test('fdb.replace() collects the destinations of the unknown MAC', () => {
    const link = make('vx0', vxlan);
    const flood = ['192.0.2.2', '192.0.2.3'].map((destination) => ({
      link,
      mac: mac('00:00:00:00:00:00'),
      destination: ip(destination),
    }));
    host().fdb.replace([...flood, ...flood]);
    assert.deepEqual(sorted(host().fdb.list(link)), sorted(flood));
    host().fdb.delete(flood.slice(0, 1));
    assert.deepEqual(host().fdb.list(link), flood.slice(1));
  });

  test('entries outlive the link’s going down and go with the link', () => {
    const link = make('vx0', { ...vxlan, local: ip('2001:db8::1') });
    const entry = { link, mac: MAC_A, destination: ip('2001:db8::2') };
    host().fdb.replace([entry]);
    host().links.set(link, { up: false });
    assert.deepEqual(host().fdb.list(link), [entry]);
    host().links.delete(link);
    assert.deepEqual(host().fdb.list(link), []);
  });

  test('fdb.replace() refuses an unknown link and a destination of the other family', () => {
    const link = make('vx0', vxlan);
    const entry = { link, mac: MAC_A, destination: ip('2001:db8::2') };
    assert.throws(() => host().fdb.replace([entry]), errnoIs(EAFNOSUPPORT));
    assert.throws(
      () => host().fdb.replace([{ ...entry, link: NO_LINK }]),
      (error) => isErrno(error, ENODEV) && error.op.includes(`"${MAC_A}"`),
    );
  });
}

export function ruleContract({ host }: Context): void {
  test('rules.add() adds once, delete() deletes once, list() reads them as they were', () => {
    for (const [family, from, to] of [
      [4, cidr('10.0.0.0/8'), cidr('192.0.2.0/24')],
      [6, cidr('2001:db8::/32'), cidr('2001:db8:1::/48')],
    ] as const) {
      const before = host().rules.list(family);
      assert.deepEqual(before[0], { family, priority: 0, table: 255 });
      const rules = [
        { family, priority: 8400, table: 70_000, mark: 0x54, markMask: 0xff },
        { family, priority: 8401, table: 100, from, to },
        { family, priority: 8402, table: 254, mark: 0xffff_fff0 },
      ];
      for (const rule of [...rules, ...rules]) host().rules.add(rule);
      assert.deepEqual(
        host()
          .rules.list(family)
          .filter((r) => r.priority >= 8400 && r.priority < 8500),
        rules,
      );
      for (const rule of [...rules, ...rules]) host().rules.delete(rule);
      assert.deepEqual(host().rules.list(family), before);
    }
  });
}

export function sysctlContract({ host, pod }: Context): void {
  test('sysctl is of its own namespace', () => {
    const name = 'net/ipv4/ip_forward';
    assert.equal(host().sysctl.get(name), '0');
    host().sysctl.set(name, '1');
    assert.equal(host().sysctl.get(name), '1');
    assert.equal(pod().sysctl.get(name), '0');
  });

  test('sysctl of a link comes and goes with it', () => {
    const { index } = vethPair(host());
    const name = 'net/ipv4/conf/a0/proxy_arp';
    host().sysctl.set(name, '1');
    assert.equal(host().sysctl.get(name), '1');
    host().links.delete(index);
    assert.equal(host().sysctl.get(name), undefined);
  });

  test('sysctl knows no setting that is not there and refuses paths that lead away', () => {
    assert.equal(host().sysctl.get('net/ipv4/no_such_setting'), undefined);
    assert.throws(
      () => host().sysctl.set('net/ipv4/no_such_setting', '1'),
      (error) => isErrno(error, 2) && error.op.includes('"net/ipv4/no_such_setting"'),
    );
    for (const name of ['../kernel/pid', '/proc/sys/net/ipv4/ip_forward', 'net//x'])
      assert.throws(() => host().sysctl.get(name), errnoIs(EINVAL));
  });
}
