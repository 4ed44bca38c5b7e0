# The two halves of 'runlock exec' as Chef handlers, and conditions and states.
require 'chef/handler'

module Runlock
  # What runlock says goes where chef-client's own output goes.
  module Command
    private

    def run_runlock(*words)
      line = ['runlock', *words]
      started = system(*line)
      return if started

      raise "#{line.join(' ')}: #{started.nil? ? 'not found' : "exit status #{$?.exitstatus.inspect}"}"
    end
  end

  # What Acquire and Release have in common: a group, and more options for runlock.
  class Handler < Chef::Handler
    include Command

    def initialize(group, *options)
      super()
      @group = group
      @options = options
    end

    private

    def runlock(command, *options)
      run_runlock(command, @group, *options, *@options)
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

  # A start handler: waits until all conditions hold. Put it before Acquire: who waits for a condition needs no slot yet.
  class WaitFor < Chef::Handler
    include Command

    def initialize(*conditions, timeout: '1h')
      super()
      @conditions = conditions
      @timeout = timeout
    end

    def report
      run_runlock('wait', *@conditions.flat_map { |condition| ['--until', condition] }, '--timeout', @timeout)
    end
  end

  # Both a report and an exception handler: sets these states to their values if the run succeeded, and to 'failed' if not.
  class Publish < Chef::Handler
    include Command

    def initialize(states)
      super()
      @states = states
    end

    def report
      @states.each { |path, value| run_runlock('state', 'set', path, failed? ? 'failed' : value) }
    end
  end
end
