/**
 * Constants of `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h` that the messages themselves need.
 * Attributes of expressions stand beside each expression in `expression-codec.ts`.
 */
export const NFNETLINK_V0 = 0;
export const NFNL_SUBSYS_NFTABLES = 10;
export const NFNL_MSG_BATCH_BEGIN = 0x10;
export const NFNL_MSG_BATCH_END = 0x11;
export const NFNL_BATCH_GENID = 1;
/** Multicast group of all nftables events. */
export const NFNLGRP_NFTABLES = 7;
/** `struct nfgenmsg`: family u8, version u8, resource id u16 (big endian). */
export const NFGENMSG_BYTES = 4;

const nft = (message: number) => (NFNL_SUBSYS_NFTABLES << 8) | message;
export const NFT_MSG_NEWTABLE = nft(0);
export const NFT_MSG_GETTABLE = nft(1);
export const NFT_MSG_DELTABLE = nft(2);
export const NFT_MSG_NEWCHAIN = nft(3);
export const NFT_MSG_GETCHAIN = nft(4);
export const NFT_MSG_DELCHAIN = nft(5);
export const NFT_MSG_NEWRULE = nft(6);
export const NFT_MSG_GETRULE = nft(7);
export const NFT_MSG_DELRULE = nft(8);
export const NFT_MSG_NEWSET = nft(9);
export const NFT_MSG_GETSET = nft(10);
export const NFT_MSG_DELSET = nft(11);
export const NFT_MSG_NEWSETELEM = nft(12);
export const NFT_MSG_GETSETELEM = nft(13);
export const NFT_MSG_DELSETELEM = nft(14);
export const NFT_MSG_NEWGEN = nft(15);
export const NFT_MSG_GETGEN = nft(16);
/** The `DESTROY` messages delete what exists and accept what does not; Linux 6.3 and newer. */
export const NFT_MSG_DESTROYTABLE = nft(26);
export const NFT_MSG_DESTROYCHAIN = nft(27);
export const NFT_MSG_DESTROYRULE = nft(28);
export const NFT_MSG_DESTROYSET = nft(29);
export const NFT_MSG_DESTROYSETELEM = nft(30);

export const NFTA_LIST_ELEM = 1;

export const NFTA_TABLE_NAME = 1;
export const NFTA_TABLE_FLAGS = 2;
export const NFTA_TABLE_HANDLE = 4;
export const NFTA_TABLE_USERDATA = 6;
export const NFT_TABLE_F_DORMANT = 0x1;

export const NFTA_CHAIN_TABLE = 1;
export const NFTA_CHAIN_HANDLE = 2;
export const NFTA_CHAIN_NAME = 3;
export const NFTA_CHAIN_HOOK = 4;
export const NFTA_CHAIN_POLICY = 5;
export const NFTA_CHAIN_TYPE = 7;
export const NFTA_CHAIN_FLAGS = 10;
export const NFTA_CHAIN_USERDATA = 12;
export const NFT_CHAIN_BINDING = 0x4;
export const NFTA_HOOK_HOOKNUM = 1;
export const NFTA_HOOK_PRIORITY = 2;
export const NFTA_HOOK_DEV = 3;
export const NFTA_HOOK_DEVS = 4;
export const NFTA_DEVICE_NAME = 1;

export const NFTA_RULE_TABLE = 1;
export const NFTA_RULE_CHAIN = 2;
export const NFTA_RULE_HANDLE = 3;
export const NFTA_RULE_EXPRESSIONS = 4;
export const NFTA_RULE_POSITION = 6;
export const NFTA_RULE_USERDATA = 7;

export const NFTA_SET_TABLE = 1;
export const NFTA_SET_NAME = 2;
export const NFTA_SET_FLAGS = 3;
export const NFTA_SET_KEY_TYPE = 4;
export const NFTA_SET_KEY_LEN = 5;
export const NFTA_SET_DATA_TYPE = 6;
export const NFTA_SET_DATA_LEN = 7;
export const NFTA_SET_DESC = 9;
export const NFTA_SET_ID = 10;
export const NFTA_SET_TIMEOUT = 11;
export const NFTA_SET_GC_INTERVAL = 12;
export const NFTA_SET_USERDATA = 13;
export const NFTA_SET_HANDLE = 16;
/** Number of elements; Linux 6.16 and newer. */
export const NFTA_SET_COUNT = 20;
export const NFTA_SET_DESC_SIZE = 1;
export const NFTA_SET_DESC_CONCAT = 2;
export const NFTA_SET_FIELD_LEN = 1;
export const NFT_SET_ANONYMOUS = 0x1;
export const NFT_SET_CONSTANT = 0x2;
export const NFT_SET_INTERVAL = 0x4;
export const NFT_SET_MAP = 0x8;
export const NFT_SET_TIMEOUT = 0x10;
/** Can be updated by rules; nft calls it `dynamic`. */
export const NFT_SET_EVAL = 0x20;
export const NFT_SET_CONCAT = 0x80;

export const NFTA_SET_ELEM_LIST_TABLE = 1;
export const NFTA_SET_ELEM_LIST_SET = 2;
export const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
export const NFTA_SET_ELEM_KEY = 1;
export const NFTA_SET_ELEM_DATA = 2;
export const NFTA_SET_ELEM_FLAGS = 3;
export const NFTA_SET_ELEM_TIMEOUT = 4;
export const NFTA_SET_ELEM_EXPIRATION = 5;
export const NFTA_SET_ELEM_USERDATA = 6;
export const NFTA_SET_ELEM_KEY_END = 10;
export const NFT_SET_ELEM_INTERVAL_END = 0x1;
export const NFT_SET_ELEM_CATCHALL = 0x2;

export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;
export const NFTA_VERDICT_CODE = 1;
export const NFTA_VERDICT_CHAIN = 2;
/** Set data type that says "verdict"; all others are information for people only. */
export const NFT_DATA_VERDICT = 0xffffff00;

export const NFTA_EXPR_NAME = 1;
export const NFTA_EXPR_DATA = 2;

export const NFTA_GEN_ID = 1;
export const NFTA_GEN_PROC_PID = 2;
export const NFTA_GEN_PROC_NAME = 3;

/** Longest name of a table, chain or set with its terminating zero byte. */
export const NFT_NAME_MAXLEN = 256;
/** Longest user data, and so the longest comment with its header. */
export const NFT_USERDATA_MAXLEN = 256;
