/**
 * Values, verdicts and registers inside expressions and elements.
 *
 * ```text
 *  NFTA_…_DATA { NFTA_DATA_VALUE bytes | NFTA_DATA_VERDICT { CODE i32, CHAIN string } }
 * ```
 * Source: `enum nft_data_attributes`, `enum nft_verdict_attributes`, `enum nft_registers`.
 */
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import type { AttributeReader } from './attributes.ts';
import {
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
} from './constants.ts';
import type { Register, Verdict } from './expressions.ts';

const VERDICT_CODES = {
  drop: 0,
  accept: 1,
  continue: -1,
  break: -2,
  jump: -3,
  goto: -4,
  return: -5,
} as const;

const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG_4 = 4;
const NFT_REG32_00 = 8;
const NFT_REG32_15 = 23;
/** `NFT_REG_1`…`NFT_REG_4` are 16-byte names of the same storage. */
const REG32_PER_REG = 4;

export function encodeRegister(
  writer: NetlinkWriter,
  attribute: number,
  register: Register | 'verdict',
): void {
  writer.attributeU32Be(
    attribute,
    register === 'verdict' ? NFT_REG_VERDICT : NFT_REG32_00 + register,
  );
}

/** @throws DecodeError for a number that is no register */
export function decodeRegister(
  reader: AttributeReader,
  attribute: number,
): Register | 'verdict' | undefined {
  const number = reader.u32(attribute);
  if (number === undefined) return undefined;
  if (number === NFT_REG_VERDICT) return 'verdict';
  if (number >= NFT_REG_1 && number <= NFT_REG_4) return (number - NFT_REG_1) * REG32_PER_REG;
  if (number >= NFT_REG32_00 && number <= NFT_REG32_15) return number - NFT_REG32_00;
  throw reader.error('register', `${number} is no register`);
}

/** A register that must be there and hold data. */
export function dataRegister(reader: AttributeReader, attribute: number): Register {
  const register = reader.required(decodeRegister(reader, attribute), 'register');
  if (register === 'verdict') throw reader.error('register', 'the verdict register holds no data');
  return register;
}
/** A data register that may be absent. */
export function optionalRegister(reader: AttributeReader, attribute: number): Register | undefined {
  return reader.bytes(attribute) === undefined ? undefined : dataRegister(reader, attribute);
}

export function encodeValue(writer: NetlinkWriter, attribute: number, value: Uint8Array): void {
  const data = writer.beginNested(attribute);
  writer.attributeBytes(NFTA_DATA_VALUE, value);
  writer.endAttribute(data);
}

export function encodeVerdict(writer: NetlinkWriter, attribute: number, verdict: Verdict): void {
  const data = writer.beginNested(attribute);
  const inner = writer.beginNested(NFTA_DATA_VERDICT);
  writer.attributeU32Be(NFTA_VERDICT_CODE, VERDICT_CODES[verdict.kind]);
  if ('chain' in verdict) writer.attributeString(NFTA_VERDICT_CHAIN, verdict.chain);
  writer.endAttribute(inner);
  writer.endAttribute(data);
}

/** @returns a copy of the value, or a verdict */
export function decodeData(
  reader: AttributeReader,
  attribute: number,
): { value: Uint8Array } | { verdict: Verdict } {
  const data = reader.required(reader.nested(attribute), 'data');
  const value = data.bytes(NFTA_DATA_VALUE);
  if (value !== undefined) return { value: Uint8Array.from(value) };
  const verdict = data.required(data.nested(NFTA_DATA_VERDICT), 'value or verdict');
  return { verdict: decodeVerdict(verdict) };
}

/** Like {@link decodeData} where only a value makes sense. */
export function decodeValue(reader: AttributeReader, attribute: number): Uint8Array {
  const data = decodeData(reader, attribute);
  if (!('value' in data)) throw reader.error('data', 'a verdict where a value is expected');
  return data.value;
}

function decodeVerdict(reader: AttributeReader): Verdict {
  const code = reader.required(reader.i32(NFTA_VERDICT_CODE), 'verdict code');
  for (const [name, known] of Object.entries(VERDICT_CODES)) {
    if (known !== code) continue;
    const kind = name as keyof typeof VERDICT_CODES;
    if (kind === 'jump' || kind === 'goto')
      return { kind, chain: reader.requiredString(NFTA_VERDICT_CHAIN, 'verdict chain') };
    return { kind };
  }
  throw reader.error('verdict code', `${code} is no verdict`);
}
