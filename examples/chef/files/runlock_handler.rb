# The two halves of 'runlock exec' as Chef handlers.
require 'chef/handler'

module Runlock
  # What both have in common: a group, and more options for runlock.
  class Handler < Chef::Handler
    def initialize(group, *options)
      super()
      @group = group
      @options = options
    end

    private

    # What runlock says goes where chef-client's own output goes.
    def runlock(command, *options)
      line = ['runlock', command, @group, *options, *@options]
      started = system(*line)
      return if started

      raise "#{line.join(' ')}: #{started.nil? ? 'not found' : "exit status #{$?.exitstatus.inspect}"}"
    end
  end

  # A start handler. What it raises ends the run before anything is changed.
  class Acquire < Handler
    def report
      runlock('acquire')
    end
  end

  # Both a report and an exception handler. After a run that never got its slot there is nothing to release, and
  # 'release --failed' does nothing.
  class Release < Handler
    def report
      failed? ? runlock('release', '--failed') : runlock('release')
    end
  end
end
