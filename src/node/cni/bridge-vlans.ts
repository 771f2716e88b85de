/**
 * VLANs on a bridge, as the reference plugin has them: a port is of one VLAN without tags (`vlan`), of several with tags
 * (`vlanTrunk`), or both. The gateway of a VLAN is an interface `<bridge>.<vlan>`: on a port of its own, as with that
 * plugin, or, where addresses come out of IPPools, the bridge's own side of the VLAN. A packet that a service or a host
 * port translates on its way into the bridge is handed to the bridge itself, and would not find a gateway elsewhere.
 */
import { ENOENT, EOPNOTSUPP, isErrno } from '#lib/errors.ts';
import type { Link, NetworkStack } from '#linux/network/port.ts';
import type { BridgeOptions } from '#wire/cni/bridge-options.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { BridgeVlan } from '#wire/rtnetlink/bridge-vlan.ts';
import { hostLinkName } from './plan.ts';

/** What every new port of a bridge is of. */
const DEFAULT_VLAN = 1;
const MAX_IF_NAME = 15;

export interface VlanPlan {
  readonly removeDefault: boolean;
  readonly add: readonly BridgeVlan[];
}

/** What a port needs. Pure. @returns undefined without VLANs */
export function planPortVlans(options: Pick<BridgeOptions, 'vlans'>): VlanPlan | undefined {
  const { vlans } = options;
  if (vlans === undefined) return undefined;
  const { id, trunk, preserveDefault } = vlans;
  return {
    removeDefault: !preserveDefault,
    add: [...trunk, ...(id === 0 ? [] : [{ from: id, to: id, pvid: true, untagged: true }])],
  };
}

/** Name of the gateway's interface; undefined if it is the bridge itself. @throws CniError 7 if it is too long */
export function vlanGatewayName({ bridge, vlans, isGateway }: BridgeOptions): string | undefined {
  if (!isGateway || vlans === undefined || vlans.id === 0) return undefined;
  const name = `${bridge}.${vlans.id}`;
  if (name.length <= MAX_IF_NAME) return name;
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `"${name}", the gateway of VLAN ${vlans.id}, is too long a name for an interface`,
    { details: `an interface's name has at most ${MAX_IF_NAME} characters; shorten "bridge"` },
  );
}

/** Name of the interface that has the gateway's addresses. @throws CniError 7 if it is too long */
export function gatewayName(options: BridgeOptions): string {
  return vlanGatewayName(options) ?? options.bridge;
}

/**
 * Makes a bridge keep VLANs apart.
 * @throws CniError 2 where the kernel cannot
 */
export function requireVlanFiltering(host: NetworkStack, master: Link, what: BridgeOptions): void {
  if (master.vlanFiltering === true) return;
  try {
    host.links.setVlanFiltering(master.index, true);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(what);
    throw error;
  }
  // Older kernels without it take the setting and do nothing.
  if (host.links.get(master.index)?.vlanFiltering !== true) throw noVlans(what);
}

/** Brings a port's VLANs to the plan. Safe at any time. @throws CniError 2 where the kernel cannot */
export function applyPortVlans(host: NetworkStack, port: Link, options: BridgeOptions): void {
  const plan = planPortVlans(options);
  if (plan === undefined) return;
  try {
    if (plan.removeDefault)
      host.links.deleteBridgeVlans(port.index, [{ from: DEFAULT_VLAN, to: DEFAULT_VLAN }]);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(options);
    if (!isErrno(error, ENOENT)) throw error; // it was removed before
  }
  try {
    host.links.addBridgeVlans(port.index, plan.add);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(options);
    throw error;
  }
}

/** The bridge's own side of its VLAN with addresses of IPPools, or the bridge itself. */
export function ensurePoolGateway(host: NetworkStack, master: Link, options: BridgeOptions): Link {
  const name = vlanGatewayName(options);
  const id = options.vlans?.id;
  if (name === undefined || id === undefined) return master;
  const gateway = host.links.get(name) ?? createVlanLink(host, { name, parent: master.index, id });
  if (gateway.kind !== 'vlan' || gateway.peerIndex !== master.index)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `"${name}" already exists but is not the bridge's own side of a VLAN of "${options.bridge}"`,
    );
  host.links.addBridgeVlans(master.index, [{ from: id, to: id }], 'self');
  // The kernel takes a smaller MTU over from the bridge, a larger one not.
  const mtuBytes = host.links.get(master.index)?.mtuBytes ?? gateway.mtuBytes;
  if (!gateway.up || gateway.mtuBytes !== mtuBytes)
    host.links.set(gateway.index, { up: true, mtuBytes });
  return gateway;
}

function createVlanLink(
  host: NetworkStack,
  spec: { readonly name: string; readonly parent: number; readonly id: number },
): Link {
  let link: Link;
  try {
    link = host.links.create({ kind: 'vlan', ...spec });
  } catch (error) {
    if (!isErrno(error, EOPNOTSUPP)) throw error;
    throw new CniError(CNI_ERROR.unsupportedField, 'unsupported field "vlan"', {
      details: 'this kernel has no VLANs (CONFIG_VLAN_8021Q, module "8021q")',
    });
  }
  const acceptRa = `net/ipv6/conf/${spec.name}/accept_ra`;
  if (host.sysctl.get(acceptRa) !== undefined) host.sysctl.set(acceptRa, '0');
  return link;
}

/** The interface that has the gateway's addresses: of the VLAN, or the bridge itself. */
export function ensureGatewayLink(host: NetworkStack, master: Link, options: BridgeOptions): Link {
  const name = vlanGatewayName(options);
  if (name === undefined) return master;
  let gateway = host.links.get(name);
  const portName = hostLinkName(`vlan gateway of ${options.bridge}`, name);
  if (gateway === undefined) {
    const mtuBytes = master.mtuBytes;
    host.links.create({ kind: 'veth', name: portName, mtuBytes, peer: { name, mtuBytes } });
    gateway = host.links.get(name);
  }
  const port = host.links.get(portName);
  if (gateway === undefined || port === undefined || gateway.peerIndex !== port.index)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `"${name}" already exists but is not the gateway of a VLAN of "${options.bridge}"`,
    );
  host.links.set(port.index, { master: master.index, up: true });
  applyPortVlans(host, port, gatewayPort(options));
  if (!gateway.up) host.links.set(gateway.index, { up: true });
  return gateway;
}

/** The gateway is of the one VLAN, and of none with tags. */
function gatewayPort(options: BridgeOptions): BridgeOptions {
  const { vlans } = options;
  return vlans === undefined ? options : { ...options, vlans: { ...vlans, trunk: [] } };
}

function noVlans({ vlans }: BridgeOptions): CniError {
  const field = vlans?.id === 0 ? 'vlanTrunk' : 'vlan';
  return new CniError(CNI_ERROR.unsupportedField, `unsupported field "${field}"`, {
    details:
      'this kernel has no VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING); use a bridge for each network',
  });
}
