/** Which form of an answer a client wants, from its `Accept` header; and what a body is, from its `Content-Type`. */
import { notAcceptable } from '#api/machinery/status.ts';

export interface MediaType {
  /** Lower case, without parameters. */
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** Media ranges read from one header; clients send three or four. */
const MAX_MEDIA_RANGES = 32;

export const JSON_TYPE = 'application/json';
export const YAML_TYPE = 'application/yaml';
export const PROTOBUF_TYPE = 'application/vnd.kubernetes.protobuf';

const NO_PARAMETERS: ReadonlyMap<string, string> = new Map();

/** Reads a header such as `application/json;as=Table;v=v1;g=meta.k8s.io, application/json`. */
export function parseMediaTypes(header: string): MediaType[] {
  // What nearly every request says, and does so three times.
  if (header === JSON_TYPE || header === '*/*')
    return [{ type: header, parameters: NO_PARAMETERS }];
  return header.split(',', MAX_MEDIA_RANGES).flatMap((part) => {
    const [type = '', ...parameters] = part.split(';').map((piece) => piece.trim());
    if (type === '') return [];
    const pairs = parameters.map((parameter): [string, string] => {
      const [key = '', value = ''] = parameter.split('=', 2);
      return [key.trim().toLowerCase(), value.trim().replace(/^"(.*)"$/, '$1')];
    });
    return [{ type: type.toLowerCase(), parameters: new Map(pairs) }];
  });
}

/** The forms in which objects can be shown. */
export type Presentation = 'object' | 'table' | 'metadata';

export interface ObjectForm {
  readonly presentation: Presentation;
  readonly encoding: 'json' | 'yaml';
}

/**
 * Chooses the first form that the client names and the server has.
 * @throws ApiError 406 if there is none
 */
export function negotiateObject(accept: string | undefined): ObjectForm {
  for (const { type, parameters } of parseMediaTypes(accept || '*/*')) {
    const encoding = encodingOf(type);
    const presentation = presentationOf(parameters);
    if (encoding !== undefined && presentation !== undefined) return { presentation, encoding };
  }
  throw notAcceptable([JSON_TYPE, YAML_TYPE, `${JSON_TYPE};as=Table;v=v1;g=meta.k8s.io`]);
}

function encodingOf(type: string): ObjectForm['encoding'] | undefined {
  if (type === JSON_TYPE || type === '*/*' || type === 'application/*') return 'json';
  return type === YAML_TYPE ? 'yaml' : undefined;
}

function presentationOf(parameters: ReadonlyMap<string, string>): Presentation | undefined {
  const as = parameters.get('as');
  if (as === undefined) return 'object';
  if (parameters.get('g') !== 'meta.k8s.io' || parameters.get('v') !== 'v1') return undefined;
  if (as === 'Table') return 'table';
  return as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList'
    ? 'metadata'
    : undefined;
}

/** True if the client wants discovery in one document (`apidiscovery.k8s.io/v2`) before the plain one. */
export function wantsAggregatedDiscovery(accept: string | undefined): boolean {
  for (const { type, parameters } of parseMediaTypes(accept ?? '')) {
    if (encodingOf(type) !== 'json') continue;
    if (parameters.get('as') === undefined) return false;
    if (
      parameters.get('as') === 'APIGroupDiscoveryList' &&
      parameters.get('g') === 'apidiscovery.k8s.io' &&
      parameters.get('v') === 'v2'
    )
      return true;
  }
  return false;
}
