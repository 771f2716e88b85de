/** For tests: definitions in the style of those that network projects publish. */
import type { CustomResourceDefinition } from './custom-resource-definition.ts';
import type { JsonSchema } from './json-schema.ts';

const NAME: JsonSchema = {
  type: 'string',
  minLength: 1,
  maxLength: 253,
  pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$',
};

const CONDITION: JsonSchema = {
  type: 'object',
  required: ['lastTransitionTime', 'message', 'reason', 'status', 'type'],
  properties: {
    lastTransitionTime: { type: 'string', format: 'date-time' },
    message: { type: 'string', maxLength: 32768 },
    observedGeneration: { type: 'integer', format: 'int64', minimum: 0 },
    reason: {
      type: 'string',
      maxLength: 1024,
      minLength: 1,
      pattern: '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$',
    },
    status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
    type: { type: 'string', maxLength: 316 },
  },
};

const ROUTE_SCHEMA: JsonSchema = {
  type: 'object',
  required: ['spec'],
  description: 'A route of requests to services.',
  properties: {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    metadata: { type: 'object' },
    spec: {
      type: 'object',
      description: 'What the route should do.',
      properties: {
        replicas: { type: 'integer', format: 'int32', minimum: 0, maximum: 10, default: 1 },
        hostnames: {
          type: 'array',
          maxItems: 4,
          description: 'Names that the route is for.',
          'x-kubernetes-list-type': 'set',
          items: {
            ...NAME,
            pattern: '^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$',
          },
        },
        rules: {
          type: 'array',
          maxItems: 16,
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['name'],
          items: {
            type: 'object',
            required: ['name'],
            'x-kubernetes-validations': [
              { rule: 'self.weight > 0 || !has(self.backend)', message: 'a weight is needed' },
            ],
            properties: {
              name: NAME,
              weight: {
                type: 'integer',
                format: 'int32',
                default: 1,
                minimum: 0,
                maximum: 1000000,
              },
              port: {
                'x-kubernetes-int-or-string': true,
                anyOf: [{ type: 'integer' }, { type: 'string' }],
              },
              timeout: { type: 'string', pattern: '^([0-9]{1,5}(h|m|s|ms)){1,4}$' },
              backend: {
                type: 'object',
                required: ['name'],
                'x-kubernetes-map-type': 'atomic',
                properties: {
                  group: { type: 'string', default: '' },
                  name: NAME,
                  note: { type: 'string', nullable: true },
                },
              },
              filter: {
                type: 'object',
                properties: { redirect: { type: 'string' }, rewrite: { type: 'string' } },
                oneOf: [{ required: ['redirect'] }, { required: ['rewrite'] }],
              },
            },
          },
        },
        template: {
          type: 'object',
          'x-kubernetes-embedded-resource': true,
          'x-kubernetes-preserve-unknown-fields': true,
        },
        options: {
          type: 'object',
          additionalProperties: { type: 'string', maxLength: 8 },
          maxProperties: 2,
        },
        raw: { 'x-kubernetes-preserve-unknown-fields': true },
        mode: {
          type: 'string',
          enum: ['Open', 'Closed'],
          default: 'Open',
          not: { enum: ['Never'] },
        },
      },
    },
    status: {
      type: 'object',
      properties: {
        replicas: { type: 'integer' },
        selector: { type: 'string' },
        conditions: {
          type: 'array',
          maxItems: 8,
          items: CONDITION,
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['type'],
        },
      },
    },
  },
};

/** A namespaced kind with everything a gateway project uses: two versions, status, scale, columns. */
export function routeDefinition(): CustomResourceDefinition {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'weaveroutes.net.example.org' },
    spec: {
      group: 'net.example.org',
      names: {
        plural: 'weaveroutes',
        singular: 'weaveroute',
        kind: 'WeaveRoute',
        listKind: 'WeaveRouteList',
        shortNames: ['wr'],
        categories: ['weave'],
      },
      scope: 'Namespaced',
      versions: [
        {
          name: 'v1beta1',
          served: true,
          storage: false,
          deprecated: true,
          schema: { openAPIV3Schema: ROUTE_SCHEMA },
          subresources: { status: {} },
        },
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema: ROUTE_SCHEMA },
          subresources: {
            status: {},
            scale: {
              specReplicasPath: '.spec.replicas',
              statusReplicasPath: '.status.replicas',
              labelSelectorPath: '.status.selector',
            },
          },
          additionalPrinterColumns: [
            { name: 'Hostnames', type: 'string', jsonPath: '.spec.hostnames' },
            { name: 'Replicas', type: 'integer', jsonPath: '.spec.replicas' },
            {
              name: 'Ready',
              type: 'string',
              jsonPath: '.status.conditions[?(@.type=="Ready")].status',
            },
            { name: 'Mode', type: 'string', jsonPath: '.spec.mode', priority: 1 },
            { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
          ],
          selectableFields: [{ jsonPath: '.spec.mode' }],
        },
      ],
    },
  };
}

/** A cluster-wide kind in the style of cluster network policies. */
export function tierDefinition(): CustomResourceDefinition {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: 'clustertiers.policy.networking.k8s.io',
      annotations: { 'api-approved.kubernetes.io': 'https://example.org/pull/1' },
    },
    spec: {
      group: 'policy.networking.k8s.io',
      names: { plural: 'clustertiers', kind: 'ClusterTier', shortNames: ['ct'] },
      scope: 'Cluster',
      versions: [
        {
          name: 'v1alpha2',
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              required: ['spec'],
              properties: {
                spec: {
                  type: 'object',
                  required: ['priority', 'subject'],
                  properties: {
                    priority: { type: 'integer', format: 'int32', minimum: 0, maximum: 1000 },
                    subject: {
                      type: 'object',
                      minProperties: 1,
                      maxProperties: 1,
                      properties: {
                        namespaces: {
                          type: 'object',
                          properties: {
                            matchLabels: {
                              type: 'object',
                              additionalProperties: { type: 'string' },
                            },
                          },
                        },
                        pods: {
                          type: 'object',
                          properties: {
                            matchLabels: {
                              type: 'object',
                              additionalProperties: { type: 'string' },
                            },
                          },
                        },
                      },
                    },
                    networks: {
                      type: 'array',
                      items: { type: 'string', format: 'cidr', maxLength: 43 },
                      minItems: 1,
                    },
                  },
                },
              },
            },
          },
        },
      ],
    },
  };
}
