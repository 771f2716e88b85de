/** The documents under `/openapi/v3`, encoded once: they are large and never change while the server runs. */
import type { KindDefinition } from '#api/kind.ts';
import { openApiDocuments, openApiHash, openApiIndex } from '#api/machinery/openapi.ts';

export interface OpenApiDocuments {
  /** Answer of `/openapi/v3`. */
  readonly index: object;
  /** By the path after `/openapi/v3/`. */
  readonly documents: ReadonlyMap<string, { readonly text: string; readonly hash: string }>;
}

/** @param version of the product, for people */
export function createOpenApiDocuments(
  kinds: readonly KindDefinition[],
  version: string,
): OpenApiDocuments {
  const documents = openApiDocuments(kinds, { version });
  return {
    index: openApiIndex(documents),
    documents: new Map(
      [...documents].map(([path, document]) => [
        path,
        { text: JSON.stringify(document), hash: openApiHash(document) },
      ]),
    ),
  };
}

/** What kubectl asks for when it finds a kind nowhere in version 3 of OpenAPI. */
export const OPENAPI_V2_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

/**
 * An OpenAPI v2 document without any kind, as protobuf (`openapi.v2.Document { 1: swagger, 2: Info { 1: title, 2: version } }`).
 * With it kubectl says of an unknown kind that there is no such kind; without it, that OpenAPI cannot be downloaded.
 */
export function emptyOpenApiV2(version: string): string {
  const field = (number: number, content: string) =>
    String.fromCharCode((number << 3) | 2, content.length) + content;
  return field(1, '2.0') + field(2, field(1, 'Tulle') + field(2, version));
}
