/* A valgrind tool that writes a window of a program's accesses, in lackey's format:

       valgrind --tool=window --records-fd=N --skip=N --limit=N COMMAND

   What is an access is lackey's choice, so that both give the same trace: fetches, loads, stores,
   and what helpers, compare-and-swap and guarded moves read and write. Lackey makes a system call
   for each access, also for those that nobody wants: 1 to 3 M accesses a second. This tool counts
   through what is skipped (60 to 90 M a second), writes the rest in large pieces, and ends the
   program with the window. Where lackey writes M it writes a load and a store, and an access that
   crosses a 4 KiB boundary as two: so mmu counts what it skips.

   record.py builds it from the headers and libraries that come with valgrind (VG_ puts valgrind's
   prefix before their names). */

#include "pub_tool_basics.h"
#include "pub_tool_libcassert.h"
#include "pub_tool_libcbase.h"
#include "pub_tool_libcfile.h"
#include "pub_tool_libcprint.h"
#include "pub_tool_libcproc.h"
#include "pub_tool_machine.h"
#include "pub_tool_options.h"
#include "pub_tool_tooliface.h"
#include "pub_tool_vki.h"

/* Of valgrind's core, not in the headers for tools: moves a file out of the program's reach. */
extern Int VG_(safe_fd)(Int fd);

enum { PAGE = 4096, LINE = 32 /* bytes, at most */, KIND = 16 /* bits below it are the size */ };

static Int records_fd = -1;
static Long skip = 0, limit = 0;
static ULong ahead;  /* accesses that are still to be skipped */
static ULong wanted; /* accesses that are still to be written */
static Int file = -1;
static HChar text[1 << 16];
static UInt filled = 0;

static void deliver(void) {
    UInt done = 0;
    while (done < filled) {
        Int wrote = VG_(write)(file, text + done, filled - done);
        if (wrote <= 0) VG_(exit)(1); /* nobody reads any more */
        done += wrote;
    }
    filled = 0;
}

static void append(HChar kind, Addr address, UWord size) {
    static const HChar digits[] = "0123456789abcdef";
    HChar *to = text + filled;
    *to++ = kind == 'I' ? 'I' : ' ';
    *to++ = kind == 'I' ? ' ' : kind;
    *to++ = ' ';
    Int shift = 32;
    while (shift < 64 && address >> shift) shift += 4;
    while (shift) *to++ = digits[address >> (shift -= 4) & 15];
    *to++ = ',';
    if (size >= 1000) *to++ = '0' + size / 1000;
    if (size >= 100) *to++ = '0' + size / 100 % 10;
    if (size >= 10) *to++ = '0' + size / 10 % 10;
    *to++ = '0' + size % 10;
    *to++ = '\n';
    filled = to - text;
    if (filled > sizeof text - LINE) deliver();
    if (--wanted == 0) {
        deliver();
        VG_(exit)(0);
    }
}

/* An access: its size, and its kind above it. */
static VG_REGPARM(2) void access(Addr address, UWord what) {
    UWord size = what & ((1 << KIND) - 1);
    UWord fits = PAGE - (address & (PAGE - 1));
    Bool crosses = size > fits;
    if (LIKELY(ahead > crosses)) {
        ahead -= 1 + crosses;
        return;
    }
    HChar kind = what >> KIND;
    if (ahead) {
        ahead--;
    } else {
        append(kind, address, crosses ? fits : size);
    }
    if (crosses) append(kind, address + fits, size - fits);
}

static void add(IRSB *to, HChar kind, IRExpr *address, Int size, IRExpr *guard) {
    IRExpr **arguments = mkIRExprVec_2(address, mkIRExpr_HWord((HWord)kind << KIND | size));
    IRDirty *call = unsafeIRDirty_0_N(2, "access", VG_(fnptr_to_fnentry)(&access), arguments);
    if (guard) call->guard = guard;
    addStmtToIRSB(to, IRStmt_Dirty(call));
}

static IRSB *instrument(VgCallbackClosure *closure, IRSB *from, const VexGuestLayout *layout,
                        const VexGuestExtents *extents, const VexArchInfo *host, IRType word,
                        IRType host_word) {
    IRSB *to = deepCopyIRSBExceptStmts(from);
    IRTypeEnv *types = from->tyenv;
    Bool begun = False; /* what stands before the first instruction is valgrind's own */
    for (Int number = 0; number < from->stmts_used; number++) {
        IRStmt *found = from->stmts[number];
        if (found->tag == Ist_NoOp) continue;
        if (found->tag == Ist_IMark) begun = True;
        if (!begun) {
            addStmtToIRSB(to, found);
            continue;
        }
        switch (found->tag) {
            case Ist_IMark:
                add(to, 'I', mkIRExpr_HWord(found->Ist.IMark.addr), found->Ist.IMark.len, NULL);
                break;
            case Ist_WrTmp:
                if (found->Ist.WrTmp.data->tag == Iex_Load)
                    add(to, 'L', found->Ist.WrTmp.data->Iex.Load.addr,
                        sizeofIRType(found->Ist.WrTmp.data->Iex.Load.ty), NULL);
                break;
            case Ist_Store:
                add(to, 'S', found->Ist.Store.addr,
                    sizeofIRType(typeOfIRExpr(types, found->Ist.Store.data)), NULL);
                break;
            case Ist_StoreG: {
                IRStoreG *store = found->Ist.StoreG.details;
                add(to, 'S', store->addr, sizeofIRType(typeOfIRExpr(types, store->data)),
                    store->guard);
                break;
            }
            case Ist_LoadG: {
                IRLoadG *load = found->Ist.LoadG.details;
                IRType widened, loaded;
                typeOfIRLoadGOp(load->cvt, &widened, &loaded);
                add(to, 'L', load->addr, sizeofIRType(loaded), load->guard);
                break;
            }
            case Ist_Dirty: {
                IRDirty *helper = found->Ist.Dirty.details;
                if (helper->mFx == Ifx_Read || helper->mFx == Ifx_Modify)
                    add(to, 'L', helper->mAddr, helper->mSize, NULL);
                if (helper->mFx == Ifx_Write || helper->mFx == Ifx_Modify)
                    add(to, 'S', helper->mAddr, helper->mSize, NULL);
                break;
            }
            case Ist_CAS: {
                IRCAS *swap = found->Ist.CAS.details;
                Int size = sizeofIRType(typeOfIRExpr(types, swap->dataLo));
                if (swap->dataHi) size *= 2;
                add(to, 'L', swap->addr, size, NULL);
                add(to, 'S', swap->addr, size, NULL);
                break;
            }
            case Ist_LLSC:
                VG_(tool_panic)("load-linked and store-conditional: not on x86-64");
            default:
                break;
        }
        addStmtToIRSB(to, found);
    }
    return to;
}

static Bool option(const HChar *argument) {
    return VG_BINT_CLO(argument, "--records-fd", records_fd, 0, 1023) ||
           VG_BINT_CLO(argument, "--skip", skip, 0, 1LL << 60) ||
           VG_BINT_CLO(argument, "--limit", limit, 0, 1LL << 60);
}

static void usage(void) {
    VG_(printf)("    --records-fd=N   write the accesses to this open file\n"
                "    --skip=N         leave out the first N [0]\n"
                "    --limit=N        end the program after N more [0: never]\n");
}

static void no_debug_usage(void) {}

static void start(void) {
    if (records_fd < 0) VG_(fmsg_bad_option)("--records-fd", "is needed\n");
    file = VG_(safe_fd)(records_fd);
    ahead = skip;
    wanted = limit ? (ULong)limit : ~0ULL;
}

static void finish(Int status) {
    deliver();
    VG_(umsg)("%llu accesses\n", skip - ahead + (limit ? (ULong)limit : ~0ULL) - wanted);
}

static void before_options(void) {
    VG_(details_name)("Window");
    VG_(details_version)(NULL);
    VG_(details_description)("a recorder of memory accesses for mmu");
    VG_(details_copyright_author)("part of mmu, MIT licence");
    VG_(details_bug_reports_to)("mmu's maintainers");
    VG_(details_avg_translation_sizeB)(400);
    VG_(basic_tool_funcs)(start, instrument, finish);
    VG_(needs_command_line_options)(option, usage, no_debug_usage);
}

VG_DETERMINE_INTERFACE_VERSION(before_options)
