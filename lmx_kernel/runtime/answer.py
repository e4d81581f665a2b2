"""One request being answered, as its reader sees it."""
# (written by the kernel's author; its reader-side API is fixed:)
#
#   with await kernel.generate(request) as answer:      # raises LmxError when refused
#       answer.id, answer.model (catalogue id)
#       event = await answer.next(timeout_s=10)          # Event, or None when nothing came in time
#                                                        # raises LmxError when the answer fails
#                                                        # raises StopAsyncIteration after the end
#       async for event in answer: ...                   # the same without timeouts
#       answer.usage() -> Usage                          # complete after the end
#   # leaving the block cancels what still runs
