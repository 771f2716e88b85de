/**
 * Rule sets as kube-proxy lays them out, as text for `nft -f`: the stand-in for kube-proxy where it cannot be had.
 *
 * What is the same: the base chains and what they ask, one chain for each service and each endpoint, an anonymous map
 * in each service's chain (mode nftables) or a walk over all services and endpoints (mode iptables, said in nft's
 * words), marks for masquerade. What is not: kube-proxy's own work before and after, and comments.
 */

export interface LayoutService {
  readonly clusterIp: string;
  readonly endpoints: readonly string[];
}

export type Layout = 'nftables' | 'iptables';

export const LAYOUT_TABLE = 'stand-in';
const POD_NETWORK = '10.0.0.0/8';
const MARK = '0x4000';
/** Services in a text: a larger transaction takes the kernel more than its share of time (kubernetes#135639). */
const SERVICES_PER_TEXT = { nftables: 500, iptables: 2500 } as const;

/** @returns texts to be loaded one after another; packets go the whole way after the last */
export function layoutTexts(
  layout: Layout,
  services: readonly LayoutService[],
  servicesPerText: number = SERVICES_PER_TEXT[layout],
): string[] {
  const texts = [`${head(layout)}\n`];
  for (let from = 0; from < services.length; from += servicesPerText) {
    const some = services.slice(from, from + servicesPerText);
    const chains = some.flatMap((service, i) => chainsOf(layout, service, from + i));
    texts.push(
      `table ip ${LAYOUT_TABLE} {\n${chains.join('\n')}\n}\n${entries(layout, some, from)}\n`,
    );
  }
  texts.push(`${hooks(layout)}\n`);
  return texts;
}

function head(layout: Layout): string {
  const lookup =
    layout === 'nftables'
      ? 'ip daddr . meta l4proto . th dport vmap @service-ips; fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports;'
      : '';
  return `table ip ${LAYOUT_TABLE} {
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  set cluster-ips { type ipv4_addr; }
  chain mark-for-masquerade { meta mark set meta mark or ${MARK}; }
  chain services { ${lookup} }
  chain masquerading {
    meta mark and ${MARK} == 0 return; meta mark set meta mark xor ${MARK}; masquerade fully-random; }
}`;
}

function chainsOf(layout: Layout, { clusterIp, endpoints }: LayoutService, s: number): string[] {
  const count = endpoints.length;
  const endpointChains = endpoints.map(
    (address, i) =>
      `chain endpoint-${s}-${i} { ip saddr ${address} jump mark-for-masquerade; meta l4proto tcp dnat to ${address}:8080; }`,
  );
  const choose =
    layout === 'nftables'
      ? `numgen random mod ${count} vmap { ${endpoints.map((_, i) => `${i} : goto endpoint-${s}-${i}`).join(', ')} };`
      : endpoints
          .map((_, i) =>
            i === count - 1
              ? `jump endpoint-${s}-${i};`
              : `numgen random mod ${count - i} 0 jump endpoint-${s}-${i};`,
          )
          .join(' ');
  return [
    ...endpointChains,
    `chain service-${s} { ip daddr ${clusterIp} tcp dport 80 ip saddr != ${POD_NETWORK} jump mark-for-masquerade; ${choose} }`,
  ];
}

/** What leads packets to the services' chains. */
function entries(layout: Layout, services: readonly LayoutService[], from: number): string {
  if (layout === 'iptables') {
    const rules = services.map(
      ({ clusterIp }, i) =>
        `ip daddr ${clusterIp} meta l4proto tcp tcp dport 80 jump service-${from + i};`,
    );
    return `table ip ${LAYOUT_TABLE} { chain services { ${rules.join(' ')} }; }`;
  }
  const elements = services.map(
    ({ clusterIp }, i) => `${clusterIp} . tcp . 80 : goto service-${from + i}`,
  );
  const addresses = services.map(({ clusterIp }) => clusterIp);
  return [
    `add element ip ${LAYOUT_TABLE} service-ips { ${elements.join(', ')} }`,
    `add element ip ${LAYOUT_TABLE} cluster-ips { ${addresses.join(', ')} }`,
  ].join('\n');
}

function hooks(layout: Layout): string {
  const base = (type: string, hook: string, priority: number, rules: string) =>
    `chain ${type}-${hook}${priority === -90 ? '-post' : ''} { type ${type} hook ${hook} priority ${priority}; ${rules}; }`;
  const key = 'ip daddr . meta l4proto . th dport';
  const filters =
    layout === 'nftables'
      ? [
          base('filter', 'prerouting', -110, `ct state new ${key} vmap @firewall-ips`),
          base(
            'filter',
            'forward',
            -110,
            `ct state new ${key} vmap @no-endpoint-services; ct state new ip daddr @cluster-ips reject`,
          ),
          base('filter', 'output', -110, `ct state new ${key} vmap @no-endpoint-services`),
          base('filter', 'output', -90, 'ct state new ip daddr @cluster-ips reject'),
        ]
      : [
          base(
            'filter',
            'forward',
            0,
            `ct state invalid drop; meta mark and ${MARK} == ${MARK} accept; ct state related,established accept`,
          ),
        ];
  return `table ip ${LAYOUT_TABLE} {
  ${filters.join('\n  ')}
  ${base('nat', 'prerouting', -100, `jump services`)}
  ${base('nat', 'output', -100, 'jump services')}
  ${base('nat', 'postrouting', 100, 'jump masquerading')}
}`;
}

/**
 * The table `nat` as kube-proxy's mode iptables writes it, as text for `iptables-restore --noflush`: a chain for each
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
    '',
  ].join('\n');
}
