/**
 * Rule sets as kube-proxy lays them out, as text for `nft -f` and for `iptables-restore`: the stand-in for kube-proxy
 * where it cannot be had.
 *
 * What is the same: the base chains and what they ask, one chain for each service and each endpoint, an anonymous map
 * in each service's chain (mode nftables) or a walk over all services and endpoints (mode iptables), marks for
 * masquerade. What is not: kube-proxy's own work before and after, and in mode nftables comments.
 */

export interface LayoutService {
  readonly clusterIp: string;
  readonly endpoints: readonly string[];
}

const LAYOUT_TABLE = 'stand-in';
const POD_NETWORK = '10.0.0.0/8';
const MARK = '0x4000';
/** Services in a text: a larger transaction takes the kernel more than its share of time (kubernetes#135639). */
const SERVICES_PER_TEXT = 500;

/** @returns texts for `nft -f` to be loaded one after another; packets go the whole way after the last */
export function nftablesTexts(services: readonly LayoutService[]): string[] {
  const texts = [`${HEAD}\n`];
  for (let from = 0; from < services.length; from += SERVICES_PER_TEXT) {
    const some = services.slice(from, from + SERVICES_PER_TEXT);
    const chains = some.flatMap((service, i) => chainsOf(service, from + i));
    texts.push(`table ip ${LAYOUT_TABLE} {\n${chains.join('\n')}\n}\n${entries(some, from)}\n`);
  }
  texts.push(`${HOOKS}\n`);
  return texts;
}

const LOOKUP =
  'ip daddr . meta l4proto . th dport vmap @service-ips; fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports;';
const HEAD = `table ip ${LAYOUT_TABLE} {
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  set cluster-ips { type ipv4_addr; }
  chain mark-for-masquerade { meta mark set meta mark or ${MARK}; }
  chain services { ${LOOKUP} }
  chain masquerading {
    meta mark and ${MARK} == 0 return; meta mark set meta mark xor ${MARK}; masquerade fully-random; }
}`;

function chainsOf({ clusterIp, endpoints }: LayoutService, s: number): string[] {
  const endpointChains = endpoints.map(
    (address, i) =>
      `chain endpoint-${s}-${i} { ip saddr ${address} jump mark-for-masquerade; meta l4proto tcp dnat to ${address}:8080; }`,
  );
  const choose = `numgen random mod ${endpoints.length} vmap { ${endpoints.map((_, i) => `${i} : goto endpoint-${s}-${i}`).join(', ')} };`;
  return [
    ...endpointChains,
    `chain service-${s} { ip daddr ${clusterIp} tcp dport 80 ip saddr != ${POD_NETWORK} jump mark-for-masquerade; ${choose} }`,
  ];
}

/** What leads packets to the services' chains. */
function entries(services: readonly LayoutService[], from: number): string {
  const elements = services.map(
    ({ clusterIp }, i) => `${clusterIp} . tcp . 80 : goto service-${from + i}`,
  );
  const addresses = services.map(({ clusterIp }) => clusterIp);
  return [
    `add element ip ${LAYOUT_TABLE} service-ips { ${elements.join(', ')} }`,
    `add element ip ${LAYOUT_TABLE} cluster-ips { ${addresses.join(', ')} }`,
  ].join('\n');
}

const base = (type: string, hook: string, priority: number, rules: string) =>
  `chain ${type}-${hook}${priority === -90 ? '-post' : ''} { type ${type} hook ${hook} priority ${priority}; ${rules}; }`;
const KEY = 'ip daddr . meta l4proto . th dport';
const HOOKS = `table ip ${LAYOUT_TABLE} {
  ${base('filter', 'prerouting', -110, `ct state new ${KEY} vmap @firewall-ips`)}
  ${base(
    'filter',
    'forward',
    -110,
    `ct state new ${KEY} vmap @no-endpoint-services; ct state new ip daddr @cluster-ips reject`,
  )}
  ${base('filter', 'output', -110, `ct state new ${KEY} vmap @no-endpoint-services`)}
  ${base('filter', 'output', -90, 'ct state new ip daddr @cluster-ips reject')}
  ${base('nat', 'prerouting', -100, 'jump services')}
  ${base('nat', 'output', -100, 'jump services')}
  ${base('nat', 'postrouting', 100, 'jump masquerading')}
}`;

/**
 * The tables as kube-proxy's mode iptables writes them, as text for `iptables-restore --noflush`: a chain for each
 * service and each endpoint, comments and marks as there. Names are numbers where kube-proxy has hashes of the same length.
 */
export function iptablesText(services: readonly LayoutService[]): string {
  const chains: string[] = [];
  const rules: string[] = [];
  const name = (kind: 'SVC' | 'SEP', number: number) =>
    `KUBE-${kind}-${number.toString(36).toUpperCase().padStart(16, '0')}`;
  let endpointCount = 0;
  services.forEach(({ clusterIp, endpoints }, s) => {
    const service = name('SVC', s);
    const comment = `-m comment --comment "default/service-${s}:http`;
    const to = `-m tcp -p tcp -d ${clusterIp} --dport 80`;
    chains.push(`:${service} - [0:0]`);
    rules.push(`-A KUBE-SERVICES ${comment} cluster IP" ${to} -j ${service}`);
    rules.push(`-A ${service} ${comment} cluster IP" ${to} ! -s ${POD_NETWORK} -j KUBE-MARK-MASQ`);
    endpoints.forEach((address, i) => {
      const endpoint = name('SEP', endpointCount++);
      const share = (1 / (endpoints.length - i)).toFixed(10);
      const draw = `-m statistic --mode random --probability ${share}`;
      chains.push(`:${endpoint} - [0:0]`);
      rules.push(
        `-A ${service} ${comment} -> ${address}:8080" ${i < endpoints.length - 1 ? draw : ''} -j ${endpoint}`,
        `-A ${endpoint} ${comment}" -s ${address} -j KUBE-MARK-MASQ`,
        `-A ${endpoint} ${comment}" -m tcp -p tcp -j DNAT --to-destination ${address}:8080`,
      );
    });
  });
  return [
    '*nat',
    ...[':KUBE-SERVICES - [0:0]', ':KUBE-POSTROUTING - [0:0]', ':KUBE-MARK-MASQ - [0:0]'],
    ...chains,
    '-A PREROUTING -j KUBE-SERVICES',
    '-A OUTPUT -j KUBE-SERVICES',
    '-A POSTROUTING -j KUBE-POSTROUTING',
    `-A KUBE-MARK-MASQ -j MARK --or-mark ${MARK}`,
    `-A KUBE-POSTROUTING -m mark ! --mark ${MARK}/${MARK} -j RETURN`,
    `-A KUBE-POSTROUTING -j MARK --xor-mark ${MARK}`,
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
    ...rules,
    'COMMIT',
    ...['*filter', ':KUBE-FORWARD - [0:0]', '-A FORWARD -j KUBE-FORWARD'],
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP',
    `-A KUBE-FORWARD -m mark --mark ${MARK}/${MARK} -j ACCEPT`,
    '-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    'COMMIT',
    '',
  ].join('\n');
}
