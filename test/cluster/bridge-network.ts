/** A second network beside ours, as an administrator would add it: containers on a bridge, with addresses of their own. */
import type { Machine } from '#lab/machine.ts';

export const BRIDGE_NETWORK = 'lan';
export const BRIDGE_LINK = 'lan0';

const CONFLIST = {
  ...{ cniVersion: '1.0.0', name: BRIDGE_NETWORK },
  plugins: [
    {
      ...{
        type: 'tulle',
        mode: 'bridge',
        bridge: BRIDGE_LINK,
        isDefaultGateway: true,
        ipMasq: true,
      },
      ipam: { type: 'host-local', subnet: '10.88.0.0/24' },
      capabilities: { portMappings: true },
    },
  ],
};

export async function addBridgeNetwork(machine: Machine): Promise<void> {
  const script = 'mkdir -p /etc/cni/net.d; cat >/etc/cni/net.d/20-lan.conflist';
  await machine.runOk(['sh', '-ec', script], { input: JSON.stringify(CONFLIST) });
}
