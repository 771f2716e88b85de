/** IPv6 for lab machines beside the addresses that they are known by. */
import { type Lab, OUTSIDE } from '#lab/lab.ts';

export const MACHINE_V6 = {
  m1: '2001:db8::11',
  m2: '2001:db8::12',
  outside: '2001:db8:51::10',
} as const;
const GATEWAYS = { m1: '2001:db8::1', m2: '2001:db8::1', outside: '2001:db8:51::1' } as const;

/** Gives IPv6 to machines `m1` and `m2`, and to the host outside. */
export async function giveIpv6(lab: Lab): Promise<void> {
  for (const name of ['m1', 'm2', 'outside'] as const) {
    const machine = lab.machine(name === 'outside' ? OUTSIDE : name);
    const ip = ['ip', '-6'];
    await machine.runOk([
      ...[...ip, 'address', 'add', `${MACHINE_V6[name]}/64`, 'dev', 'eth0', 'nodad'],
    ]);
    await machine.runOk([...ip, 'route', 'add', 'default', 'via', GATEWAYS[name]]);
  }
}
