/** The kinds of the core group but pods: `k8s.io/api/core/v1/generated.proto`. */
import {
  bool,
  CONDITION,
  INT_OR_STRING,
  int,
  kindMessage,
  LOCAL_OBJECT_REFERENCE,
  list,
  MICRO_TIME,
  map,
  message,
  OBJECT_REFERENCE,
  one,
  optBool,
  optInt,
  optional,
  optStr,
  QUANTITY,
  str,
  stringMap,
  strings,
  TIME,
} from './table.ts';

/** Upstream's conditions of namespaces and nodes are older than `metav1.Condition`, and numbered otherwise. */
const NAMESPACE_CONDITION = message('NamespaceCondition', {
  1: str('type'),
  2: str('status'),
  4: one('lastTransitionTime', TIME),
  5: str('reason'),
  6: str('message'),
});

export const NAMESPACE_MESSAGE = kindMessage('Namespace', {
  2: one('spec', message('NamespaceSpec', { 1: strings('finalizers') })),
  3: one(
    'status',
    message('NamespaceStatus', { 1: str('phase'), 2: list('conditions', NAMESPACE_CONDITION) }),
  ),
});

export const CONFIG_MAP_MESSAGE = kindMessage('ConfigMap', {
  2: stringMap('data'),
  3: map('binaryData', 'bytes'),
  4: optBool('immutable'),
});

export const SECRET_MESSAGE = kindMessage('Secret', {
  2: map('data', 'bytes'),
  3: str('type'),
  4: stringMap('stringData'),
  5: optBool('immutable'),
});

export const SERVICE_ACCOUNT_MESSAGE = kindMessage('ServiceAccount', {
  2: list('secrets', OBJECT_REFERENCE),
  3: list('imagePullSecrets', LOCAL_OBJECT_REFERENCE),
  4: optBool('automountServiceAccountToken'),
});

const SERVICE_SPEC = message('ServiceSpec', {
  1: list(
    'ports',
    message('ServicePort', {
      1: str('name'),
      2: str('protocol'),
      3: int('port'),
      4: one('targetPort', INT_OR_STRING),
      5: int('nodePort'),
      6: optStr('appProtocol'),
    }),
  ),
  2: stringMap('selector'),
  3: str('clusterIP'),
  4: str('type'),
  5: strings('externalIPs'),
  7: str('sessionAffinity'),
  8: str('loadBalancerIP'),
  9: strings('loadBalancerSourceRanges'),
  10: str('externalName'),
  11: str('externalTrafficPolicy'),
  12: int('healthCheckNodePort'),
  13: bool('publishNotReadyAddresses'),
  14: optional(
    'sessionAffinityConfig',
    message('SessionAffinityConfig', {
      1: optional('clientIP', message('ClientIPConfig', { 1: optInt('timeoutSeconds') })),
    }),
  ),
  17: optStr('ipFamilyPolicy'),
  18: strings('clusterIPs'),
  19: strings('ipFamilies'),
  20: optBool('allocateLoadBalancerNodePorts'),
  21: optStr('loadBalancerClass'),
  22: optStr('internalTrafficPolicy'),
  23: optStr('trafficDistribution'),
});

const PORT_STATUS = message('PortStatus', {
  1: int('port'),
  2: str('protocol'),
  3: optStr('error'),
});

export const SERVICE_MESSAGE = kindMessage('Service', {
  2: one('spec', SERVICE_SPEC),
  3: one(
    'status',
    message('ServiceStatus', {
      1: one(
        'loadBalancer',
        message('LoadBalancerStatus', {
          1: list(
            'ingress',
            message('LoadBalancerIngress', {
              1: str('ip'),
              2: str('hostname'),
              3: optStr('ipMode'),
              4: list('ports', PORT_STATUS),
            }),
          ),
        }),
      ),
      2: list('conditions', CONDITION),
    }),
  ),
});

const ENDPOINT_ADDRESS = message('EndpointAddress', {
  1: str('ip'),
  2: optional('targetRef', OBJECT_REFERENCE),
  3: str('hostname'),
  4: optStr('nodeName'),
});

export const ENDPOINTS_MESSAGE = kindMessage('Endpoints', {
  2: list(
    'subsets',
    message('EndpointSubset', {
      1: list('addresses', ENDPOINT_ADDRESS),
      2: list('notReadyAddresses', ENDPOINT_ADDRESS),
      3: list(
        'ports',
        message('EndpointPort', {
          1: str('name'),
          2: int('port'),
          3: str('protocol'),
          4: optStr('appProtocol'),
        }),
      ),
    }),
  ),
});

const EVENT_SOURCE = message('EventSource', { 1: str('component'), 2: str('host') });
const EVENT_SERIES = message('EventSeries', {
  1: int('count'),
  2: one('lastObservedTime', MICRO_TIME),
});

export const EVENT_MESSAGE = kindMessage('Event', {
  2: optional('involvedObject', OBJECT_REFERENCE),
  3: str('reason'),
  4: str('message'),
  5: one('source', EVENT_SOURCE),
  6: one('firstTimestamp', TIME),
  7: one('lastTimestamp', TIME),
  8: int('count'),
  9: str('type'),
  10: one('eventTime', MICRO_TIME),
  11: optional('series', EVENT_SERIES),
  12: str('action'),
  13: optional('related', OBJECT_REFERENCE),
  14: str('reportingComponent'),
  15: str('reportingInstance'),
});

/** `k8s.io/api/events/v1/generated.proto`: the same event, with other names and numbers. */
export const EVENTS_EVENT_MESSAGE = kindMessage('Event', {
  2: one('eventTime', MICRO_TIME),
  3: optional('series', EVENT_SERIES),
  4: str('reportingController'),
  5: str('reportingInstance'),
  6: str('action'),
  7: str('reason'),
  8: optional('regarding', OBJECT_REFERENCE),
  9: optional('related', OBJECT_REFERENCE),
  10: str('note'),
  11: str('type'),
  12: one('deprecatedSource', EVENT_SOURCE),
  13: one('deprecatedFirstTimestamp', TIME),
  14: one('deprecatedLastTimestamp', TIME),
  15: int('deprecatedCount'),
});

const DAEMON_ENDPOINT = message('DaemonEndpoint', { 1: int('Port') });

const NODE_STATUS = message('NodeStatus', {
  1: map('capacity', QUANTITY),
  2: map('allocatable', QUANTITY),
  3: str('phase'),
  4: list(
    'conditions',
    message('NodeCondition', {
      1: str('type'),
      2: str('status'),
      3: one('lastHeartbeatTime', TIME),
      4: one('lastTransitionTime', TIME),
      5: str('reason'),
      6: str('message'),
    }),
  ),
  5: list('addresses', message('NodeAddress', { 1: str('type'), 2: str('address') })),
  6: one(
    'daemonEndpoints',
    message('NodeDaemonEndpoints', { 1: one('kubeletEndpoint', DAEMON_ENDPOINT) }),
  ),
  7: one(
    'nodeInfo',
    message('NodeSystemInfo', {
      1: str('machineID'),
      2: str('systemUUID'),
      3: str('bootID'),
      4: str('kernelVersion'),
      5: str('osImage'),
      6: str('containerRuntimeVersion'),
      7: str('kubeletVersion'),
      8: str('kubeProxyVersion'),
      9: str('operatingSystem'),
      10: str('architecture'),
    }),
  ),
  8: list(
    'images',
    message('ContainerImage', { 1: strings('names'), 2: one('sizeBytes', 'int64') }),
  ),
});

export const NODE_MESSAGE = kindMessage('Node', {
  2: one(
    'spec',
    message('NodeSpec', {
      1: str('podCIDR'),
      2: str('externalID'),
      3: str('providerID'),
      4: bool('unschedulable'),
      5: list(
        'taints',
        message('Taint', {
          1: str('key'),
          2: str('value'),
          3: str('effect'),
          4: optional('timeAdded', TIME),
        }),
      ),
      7: strings('podCIDRs'),
    }),
  ),
  3: one('status', NODE_STATUS),
});
