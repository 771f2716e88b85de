/** Manifests as people get them wrong, and what they are told: what is wrong, where, and what would be right. */
import type { Command, Group } from './kubectl-commands.ts';

/** A manifest that is refused. */
function refused(stdin: string, expect: RegExp): Command {
  return { run: 'apply -f -', stdin, expect, status: 1 };
}

const service = (spec: string) =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {${spec}}\n`;
const policy = (rules: string) =>
  `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}, ${rules}}\n`;
const ingress = (spec: string) =>
  `apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {${spec}}\n`;
const container = (fields: string, spec = '') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {${spec}containers: [{name: c, image: i, ${fields}}]}\n`;
const configMap = (fields: string, name = 'a') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\n${fields}\n`;

export const MISTAKES: Group = {
  name: 'mistakes of people',
  commands: [
    // Whole documents.
    refused(
      'apiVersion: v1\nkind: Servise\nmetadata: {name: s}\n',
      /no matches for kind "Servise"/,
    ),
    refused(
      'apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: s}\n',
      /no matches for kind "Ingress" in version "networking\.k8s\.io\/v1beta1"/,
    ),
    refused('metadata: {name: s}\n', /kind not set|apiVersion not set/),
    refused(
      'apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n',
      /tab|cannot start any token/,
    ),
    refused('# nothing\n', /no objects passed to apply/),
    refused(
      configMap('data: {}', 'My_Config'),
      /metadata\.name: Invalid value: "My_Config": .*RFC 1123/,
    ),
    {
      ...refused('apiVersion: v1\nkind: ConfigMap\ndata: {}\n', /name or generateName is required/),
      run: 'create -f -',
    },
    refused(
      `${configMap('data: {}', 'good')}---\n${configMap('data: {}', 'Bad')}`,
      /configmap\/good created[\s\S]*"Bad" is invalid: metadata\.name/,
    ),
    // Types.
    refused(configMap('data: {port: 8080}'), /data\[port\]: Invalid value: 8080: must be a string/),
    refused(service('ports: {port: 80}'), /spec\.ports: Invalid value: "\{…\}": must be an array/),
    refused(
      service('ports: [{port: "80"}]'),
      /spec\.ports\[0\]\.port: Invalid value: "80": must be an integer/,
    ),
    refused(
      service('selector: {matchLabels: {app: web}}, ports: [{port: 80}]'),
      /spec\.selector\[matchLabels\]: Invalid value: "\{…\}": must be a string/,
    ),
    refused(
      'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: hunter2!}\n',
      /data\[password\]: Invalid value: "<hidden>": must be base64/,
    ),
    // Services.
    refused(
      service('selecter: {app: web}, ports: [{port: 80}]'),
      /unknown field "spec\.selecter" \(did you mean "selector"\?\)/,
    ),
    refused(
      service('ports: [{port: 70000}]'),
      /spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535/,
    ),
    refused(service('ports: [{port: 80}, {port: 81}]'), /spec\.ports\[0\]\.name: Required value/),
    refused(
      service('ports: [{name: a, port: 80}, {name: b, port: 80}]'),
      /spec\.ports\[1\]: Duplicate value/,
    ),
    refused(
      service('ports: [{port: 80, protocol: tcp}]'),
      /protocol: Unsupported value: "tcp": supported values: .*"TCP"/,
    ),
    refused(
      service('type: Loadbalancer, ports: [{port: 80}]'),
      /spec\.type: Unsupported value: "Loadbalancer": supported values: .*"LoadBalancer"/,
    ),
    refused(
      service('ports: [{port: 80, nodePort: 30080}]'),
      /nodePort: Forbidden: may not be used when `type` is 'ClusterIP'/,
    ),
    refused(
      service('type: NodePort, ports: [{port: 80, nodePort: 80}]'),
      /spec\.ports\[0\]\.nodePort: Invalid value: 80: .*30000-32767/,
    ),
    refused(
      service('clusterIP: 192.0.2.1, ports: [{port: 80}]'),
      /spec\.clusterIPs?.*Invalid value: .*192\.0\.2\.1.*: .*range/,
    ),
    refused(
      service('type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/33], ports: [{port: 80}]'),
      /loadBalancerSourceRanges\[0\]: Invalid value: "10\.0\.0\.0\/33": must be a valid CIDR value/,
    ),
    refused(service('type: ExternalName'), /spec\.externalName: Required value/),
    // Policies.
    refused(
      policy('ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]'),
      /ipBlock\.cidr: Invalid value: "10\.0\.0\.1": must be a valid CIDR value/,
    ),
    refused(
      policy('ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]}]'),
      /except\[0\]: Invalid value: "192\.168\.0\.0\/16": must be a strict subset of `cidr`/,
    ),
    refused(
      policy(
        'ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Equals}]}}]}]',
      ),
      /matchExpressions\[0\]\.operator: Unsupported value: "Equals": supported values: "In"/,
    ),
    refused(
      policy('policyTypes: [ingress]'),
      /spec\.policyTypes\[0\]: Unsupported value: "ingress": .*"Ingress"/,
    ),
    refused(
      policy('egress: [{from: [{podSelector: {}}]}]'),
      /unknown field "spec\.egress\[0\]\.from"/,
    ),
    refused(
      policy('egress: [{ports: [{port: 90, endPort: 80}]}]'),
      /ports\[0\]\.endPort: Invalid value: 80: must be greater than or equal to `port`/,
    ),
    // Ingresses.
    refused(
      ingress('ingressClassName: fast'),
      /spec: Invalid value: .*either `defaultBackend` or `rules` must be specified/,
    ),
    refused(
      ingress(
        'rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {serviceName: web, servicePort: 80}}]}}]',
      ),
      /unknown field "spec\.rules\[0\]\.http\.paths\[0\]\.backend\.serviceName"/,
    ),
    refused(
      ingress(
        'rules: [{http: {paths: [{path: /, backend: {service: {name: web, port: {number: 80}}}}]}}]',
      ),
      /paths\[0\]\.pathType: Required value: pathType must be specified/,
    ),
    refused(
      ingress('rules: [{host: "a.example:80"}]'),
      /spec\.rules\[0\]\.host: Invalid value: "a\.example:80"/,
    ),
    // Pods.
    refused(
      'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n',
      /spec\.containers\[0\]\.image: Required value/,
    ),
    refused(
      container('env: [{name: PORT, value: 8080}]'),
      /env\[0\]\.value: Invalid value: 8080: must be a string/,
    ),
    refused(
      container('readinessProbe: {httpget: {port: 80}}'),
      /unknown field "spec\.containers\[0\]\.readinessProbe\.httpget" \(did you mean "httpGet"\?\)/,
    ),
    refused(
      container('livenessProbe: {}'),
      /livenessProbe: Required value: must specify a handler type/,
    ),
    refused(
      container('resources: {limits: {memory: 1GB}}'),
      /limits\[memory\]: Invalid value: "1GB": must be a quantity/,
    ),
    refused(
      container('resources: {limits: {cpu: 1}, requests: {cpu: 2}}'),
      /requests: Invalid value: "2": must be less than or equal to cpu limit of 1/,
    ),
    refused(
      container('volumeMounts: [{name: data, mountPath: /data}]'),
      /volumeMounts\[0\]\.name: Not found: "data"/,
    ),
    refused(
      container('ports: [{name: a-very-long-port-name, containerPort: 80}]'),
      /ports\[0\]\.name: Invalid value: "a-very-long-port-name": must be no more than 15/,
    ),
    refused(
      container('', 'dnsPolicy: None, '),
      /spec\.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None/,
    ),
    // Others.
    refused(
      'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata: {tls.crt: AA==}\n',
      /data\[tls\.key\]: Required value/,
    ),
    refused(
      'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}\nrules: [{resources: [pods], verbs: [get]}]\n',
      /rules\[0\]\.apiGroups: Required value: resource rules must supply at least one api group/,
    ),
    refused(
      'apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: r}\nsubjects: [{kind: user, name: jane}]\nroleRef: {kind: Role, name: r}\n',
      /subjects\[0\]\.kind: Unsupported value: "user": supported values: "ServiceAccount", "User", "Group"/,
    ),
    refused(
      'apiVersion: tulle.dev/v1alpha1\nkind: IPPool\nmetadata: {name: @-p}\nspec: {cidr: 10.244.0.1/16}\n',
      /spec\.cidr: Invalid value: "10\.244\.0\.1\/16": .*10\.244\.0\.0\/16/,
    ),
    // A change that is none of the client's.
    { run: 'apply -f -', stdin: container(''), expect: 'pod/p created\n' },
    refused(
      container('', 'hostNetwork: true, '),
      /spec: Forbidden: pod updates may not change fields other than .*this one changes hostNetwork/,
    ),
    { run: 'set image pod/p c=other:1', expect: 'pod/p image updated\n' },
  ],
};
